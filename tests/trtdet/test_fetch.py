"""`trtdet fetch`, and `trtdet build` without weights, as processes against a real server."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import run_trtdet
from tests.file_server import FileServer, cut, stall, trickle
from trtdet.cli import cli
from trtdet.errors import TrtdetError

CONTENT = bytes(range(256)) * 200
SHA256 = hashlib.sha256(CONTENT).hexdigest()

# `trtdet fetch clip-vit-b32`, had the tower the content above.
FETCH_TOWER = f"""
import sys
from trtdet.build import weights_store
from trtdet.build.release import Release
from trtdet.cli import main
weights_store.CLIP_TOWERS["clip-vit-b32"] = Release(
    "tower.pt", "https://weights.invalid/tower.pt", sha256="{SHA256}"
)
sys.argv = ["trtdet", "fetch", "clip-vit-b32"]
main()
"""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """The mirror that the processes fetch from."""
    monkeypatch.setenv("no_proxy", "*")
    with FileServer() as server:
        server.files["/tower.pt"] = CONTENT
        monkeypatch.setenv("TRTDET_MIRROR", server.url)
        yield server


@pytest.fixture
def weights() -> Path:
    return Path(os.environ["TRTDET_HOME"]) / "weights"


@contextlib.contextmanager
def fetching_tower(**options) -> Iterator[subprocess.Popen]:
    command = [sys.executable, "-c", FETCH_TOWER]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **{**streams, **options}) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for_bytes(path: Path, count: int) -> None:
    deadline = time.monotonic() + 30
    while not path.exists() or path.stat().st_size < count:
        assert time.monotonic() < deadline, f"{path} has not come"
        time.sleep(0.02)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_fetch_goes_on_where_it_stopped(server, weights, sent):
    server.plan = [stall(1000)]
    part = weights / "tower.pt.part"
    with fetching_tower() as process:
        wait_for_bytes(part, 1000)
        process.send_signal(sent)
        _out, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "1,000 bytes are kept: the same command goes on" in stderr
    assert "Traceback" not in stderr
    assert part.read_bytes() == CONTENT[:1000]
    with fetching_tower() as process:
        stdout, stderr = process.communicate(timeout=30)
    assert stdout == f"{weights / 'tower.pt'}\n"
    assert stderr == f"fetch      {server.url}/tower.pt\n"
    assert server.ranges == [None, "bytes=1000-"]
    assert [path.name for path in weights.iterdir()] == ["tower.pt"]
    assert (weights / "tower.pt").read_bytes() == CONTENT


def test_of_two_processes_one_fetches_and_the_other_waits(server, weights):
    server.plan = [stall(1000)]
    with fetching_tower() as first:
        wait_for_bytes(weights / "tower.pt.part", 1000)
        with fetching_tower() as second:
            assert second.stderr.readline() == (
                "another process is fetching tower.pt: waiting for it\n"
            )
            server.go_on.set()
            outputs = [process.communicate(timeout=30)[0] for process in (first, second)]
    assert outputs == [f"{weights / 'tower.pt'}\n"] * 2
    assert len(server.ranges) == 1
    assert (weights / "tower.pt").read_bytes() == CONTENT


def test_a_process_that_was_killed_leaves_no_lock_behind(server, weights):
    server.plan = [stall(1000)]
    with fetching_tower() as process:
        wait_for_bytes(weights / "tower.pt.part", 1000)
        process.kill()
    with fetching_tower() as process:
        stdout, stderr = process.communicate(timeout=30)
    assert "waiting" not in stderr
    assert stdout == f"{weights / 'tower.pt'}\n"
    assert [path.name for path in weights.iterdir()] == ["tower.pt"]


def test_a_terminal_sees_a_bar(server, weights):
    server.plan = [cut(20_000), trickle]
    terminal, its_end = pty.openpty()
    shown = b""
    with fetching_tower(stderr=its_end) as process:
        os.close(its_end)
        with contextlib.suppress(OSError):  # Linux reports the end of a terminal as an error
            while part := os.read(terminal, 65536):
                shown += part
        os.close(terminal)
        assert process.communicate(timeout=30)[0] == f"{weights / 'tower.pt'}\n"
    assert b"/51.2 kB" in shown
    assert b"the body ended after 20,000 of 51,200 bytes; trying again in 1 s" in shown


def test_a_detector_s_weights(server, shared, weights):
    for file in ("ForenSynth_Tiny_LaDeDa.pth", "WildRF_Tiny_LaDeDa.pth"):
        server.files[f"/{file}"] = (shared / "checkpoints" / file).read_bytes()
    first, second = (
        weights / name for name in ("ForenSynth_Tiny_LaDeDa.pth", "WildRF_Tiny_LaDeDa.pth")
    )
    done = run_trtdet("fetch", "tiny-ladeda", "--variant", "wildrf")
    assert done.stdout == f"{second}\n"
    assert done.stderr == f"fetch      {server.url}/{second.name}\n"
    done = run_trtdet("fetch", "tiny-ladeda", "--all")
    assert done.stdout == f"{first}\n{second}\n"
    assert done.stderr == f"fetch      {server.url}/{first.name}\n"
    assert len(server.ranges) == 2
    assert {path.name: path.read_bytes() for path in weights.iterdir()} == {
        name.removeprefix("/"): content
        for name, content in server.files.items()
        if name != "/tower.pt"
    }


def test_build_fetches_what_it_is_not_given(server, shared, weights, tmp_path):
    file = "WildRF_Tiny_LaDeDa.pth"
    server.files[f"/{file}"] = (shared / "checkpoints" / file).read_bytes()
    arguments = ("build", "--model", "tiny-ladeda", "--variant", "wildrf", "--out", tmp_path / "b")
    done = run_trtdet(*arguments)
    assert done.stdout == f"{tmp_path / 'b'}\n"
    assert done.stderr.splitlines()[:2] == [
        f"fetch      {server.url}/{file}",
        f"weights    {weights / file}",
    ]
    record = (tmp_path / "b/bundle.json").read_text()
    assert '"released": true' in record
    assert '"variant": "wildrf"' in record


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("nobody", "CLIP towers: clip-vit-l14, clip-vit-b32"),
        ("ferretnet", "Did you mean ferretnet-s"),
        ("tiny-ladeda --variant wild", "Known: forensynth, wildrf"),
        ("tiny-ladeda --variant wildrf --all", "contradict each other"),
        ("clip-vit-l14 --variant fp16", "leave --variant out"),
        ("cooccurrence", "trtdet train LABELS.CSV --model cooccurrence"),
    ],
)
def test_what_cannot_be_fetched_says_why(arguments, message):
    with pytest.raises(TrtdetError) as caught:
        cli.main(["fetch", *arguments.split()], standalone_mode=False)
    assert message in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("arguments", ["fetch ferretnet-s", "build --model ferretnet-s"])
def test_without_network_one_line_says_what_to_do(server, weights, arguments):
    server.stop()
    done = run_trtdet(*arguments.split(), check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    fetch, error = done.stderr.splitlines()
    file = "ferretnet-s-median-3.pth"
    assert fetch == f"fetch      {server.url}/{file}"
    assert error.startswith(f"Error: cannot fetch {server.url}/{file} (Connection refused): ")
    assert error.endswith(f"/{file} and put it into {weights}, then run the same command again")
    assert list(weights.iterdir()) == []
