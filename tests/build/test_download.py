"""Downloads from a real server that misbehaves in every way that networks do."""

from __future__ import annotations

import hashlib
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

import trtdet.build.download
import trtdet.build.transfer
from tests.file_server import (
    FileServer,
    cut,
    cut_chunk,
    cut_unannounced,
    hang_up,
    mute,
    page,
    reset,
    span,
    stall,
    status,
    trickle,
    whole,
)
from trtdet.build.download import MIRROR_VARIABLE, download
from trtdet.build.release import Release
from trtdet.errors import CheckpointError, DownloadError, InputError, TrtdetError

CONTENT = bytes(range(256)) * 200  # 51,200 bytes
SIZE = len(CONTENT)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
BLOB = hashlib.sha1(b"blob %d\0" % SIZE + CONTENT).hexdigest()

NAME = "weights.pth"
URL = f"https://weights.invalid/raw/{NAME}"
RELEASE = Release(NAME, URL, sha256=SHA256)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """The mirror that has the file."""
    monkeypatch.setenv("no_proxy", "*")
    with FileServer() as server:
        server.files[f"/{NAME}"] = CONTENT
        monkeypatch.setenv(MIRROR_VARIABLE, server.url + "/")
        yield server


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds between attempts, which are noted and not waited."""
    waits: list[float] = []
    monkeypatch.setattr(trtdet.build.download, "time", SimpleNamespace(sleep=waits.append))
    return waits


def fetch(folder: Path, release: Release = RELEASE) -> list[tuple[int, int | None]]:
    """Download; the progress that was told. The folder then holds the file and nothing else."""
    told: list[tuple[int, int | None]] = []
    path = download(release, folder, on_progress=lambda *progress: told.append(progress))
    assert path == folder / NAME
    assert path.read_bytes() == CONTENT
    assert [each.name for each in folder.iterdir()] == [NAME]
    return told


def failure(folder: Path, kind: type[TrtdetError], release: Release = RELEASE) -> str:
    """Download in vain; the message, which is one line. No file appears under the name."""
    with pytest.raises(kind) as caught:
        download(release, folder, on_progress=lambda _done, _total: None)
    assert not (folder / NAME).exists()
    assert not list(folder.glob("*.lock"))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "release",
    [Release(NAME, URL, sha256=SHA256), Release(NAME, URL, git_blob=BLOB)],
    ids=["sha256", "git blob"],
)
def test_a_file_comes_and_is_verified(server, tmp_path, release):
    told = fetch(tmp_path / "new/folder", release)
    assert told[-1] == (SIZE, SIZE)
    assert server.ranges == [None]


def test_a_slow_server_is_waited_for_and_progress_is_told(server, tmp_path):
    server.plan = [trickle]
    told = fetch(tmp_path)
    assert len(told) > 3
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert {total for _, total in told} == {SIZE}


@pytest.mark.parametrize("broken", [cut(1000), reset(1000)], ids=["cut off", "reset"])
def test_a_broken_connection_is_resumed(server, tmp_path, waits, broken):
    server.plan = [broken, broken]
    told = fetch(tmp_path)
    assert server.ranges == [None, "bytes=1000-", "bytes=2000-"]
    assert told[-1] == (SIZE, SIZE)
    assert len(waits) == 2


def test_a_body_of_unknown_length_that_is_cut_off_is_resumed(server, tmp_path):
    server.plan = [cut_chunk]
    assert (1000, None) in fetch(tmp_path)
    assert server.ranges == [None, "bytes=1000-"]


def test_a_server_that_falls_silent_is_asked_again(server, tmp_path, monkeypatch):
    monkeypatch.setattr(trtdet.build.transfer, "TIMEOUT_S", 0.2)
    server.plan = [mute, stall(0), stall(1000)]
    fetch(tmp_path)
    assert server.ranges == [None, None, None, "bytes=1000-"]


def test_a_server_that_hangs_up_is_asked_again(server, tmp_path, waits):
    server.plan = [hang_up, hang_up]
    fetch(tmp_path)
    assert waits == [1.0, 4.0]


def test_a_connection_that_stays_open_after_the_file_is_not_waited_for(
    server, tmp_path, monkeypatch
):
    monkeypatch.setattr(trtdet.build.transfer, "TIMEOUT_S", 1.0)
    server.plan = [stall(SIZE)]
    fetch(tmp_path)
    assert server.ranges == [None]


def test_attempts_end_when_none_brings_more(server, tmp_path, waits):
    server.plan = [cut(1000, ranges=False)] * 20
    message = failure(tmp_path, DownloadError)
    assert waits == [1.0, 4.0, 15.0]
    assert "the body ended after 1,000 of 51,200 bytes" in message
    assert "1,000 bytes are kept: run the same command again" in message
    assert (tmp_path / f"{NAME}.part").read_bytes() == CONTENT[:1000]


def test_what_was_kept_is_not_asked_for_again(server, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT[:30_000])
    fetch(tmp_path)
    assert server.ranges == ["bytes=30000-"]


def test_a_server_that_ignores_ranges_sends_the_whole(server, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(b"x" * 30_000)
    server.plan = [whole]
    fetch(tmp_path)
    assert server.ranges == ["bytes=30000-"]


@pytest.mark.parametrize("count", [1000, SIZE // 2])
def test_a_server_may_send_less_than_it_is_asked_for(server, tmp_path, count):
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT[:1000])
    server.plan = [span(1000, count)]
    told = fetch(tmp_path)
    assert server.ranges == ["bytes=1000-", f"bytes={1000 + count}-"]
    assert {total for _, total in told} == {SIZE}


@pytest.mark.parametrize(
    "other",
    [span(500, 2000), span(1500, 2000), span(1000, 2000, "*")],
    ids=["before", "after", "*"],
)
def test_another_range_than_the_one_asked_for_is_not_appended(server, tmp_path, waits, other):
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT[:1000])
    server.plan = [other]
    fetch(tmp_path)
    assert server.ranges == ["bytes=1000-", None]
    assert len(waits) == 1  # told from its header, not by the hash at the end


def test_the_beginning_in_place_of_the_range_is_a_new_start(server, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT[:1000])
    server.plan = [span(0, 600)]
    fetch(tmp_path)
    assert server.ranges == ["bytes=1000-", "bytes=600-"]


def test_a_complete_part_is_put_in_place(server, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT)
    assert fetch(tmp_path) == []
    assert server.ranges == [f"bytes={SIZE}-"]  # answered with 416


@pytest.mark.parametrize("size", [1000, SIZE, SIZE + 1])
def test_a_part_of_another_file_costs_a_second_start(server, tmp_path, size):
    (tmp_path / f"{NAME}.part").write_bytes(b"x" * size)
    fetch(tmp_path)
    assert server.ranges == [f"bytes={size}-", None]


@pytest.mark.parametrize("kept", [b"", b"x" * 1000], ids=["new", "resumed"])
def test_another_file_is_refused_and_kept_aside(server, tmp_path, kept):
    other = CONTENT[:-1] + b"!"
    server.files[f"/{NAME}"] = other
    (tmp_path / f"{NAME}.part").write_bytes(kept)
    message = failure(tmp_path, CheckpointError)
    assert [path.name for path in tmp_path.iterdir()] == [f"{NAME}.refused"]
    assert (tmp_path / f"{NAME}.refused").read_bytes() == other
    assert f"expected sha256 {SHA256}" in message
    assert f"51,200 bytes with sha256 {hashlib.sha256(other).hexdigest()}" in message
    assert f"{server.url}/{NAME}" in message
    server.files[f"/{NAME}"] = CONTENT
    assert download(RELEASE, tmp_path, on_progress=lambda *_: None).read_bytes() == CONTENT


@pytest.mark.parametrize("code", [403, 404])
def test_what_is_not_there_is_asked_for_once(server, tmp_path, waits, code):
    server.plan = [status(code)] * 2
    message = failure(tmp_path, DownloadError)
    assert f"the server answered {code}" in message
    assert f"download {URL} and put it into {tmp_path}, then run the same command" in message
    assert len(server.ranges) == 1
    assert waits == []


def test_a_busy_server_is_asked_again_when_it_says(server, tmp_path, waits):
    server.plan = [status(503), status(429, Retry_After=7), status(500, Retry_After=10**6)]
    fetch(tmp_path)
    assert waits == [1.0, 7.0, 60.0]


def test_without_network_one_line_says_what_to_do(tmp_path, monkeypatch, waits):
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as closed:  # bound, but nobody listens
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv(MIRROR_VARIABLE, f"http://127.0.0.1:{closed.getsockname()[1]}")
        message = failure(tmp_path, DownloadError)
        assert "Connection refused" in message
        other = Release(NAME, "https://weights.invalid/other.pth", sha256=SHA256)
        renamed = failure(tmp_path, DownloadError, other)
    assert f"download {URL} and put it into {tmp_path}, then run the same command" in message
    assert f"download {other.url} and put it into {tmp_path} as {NAME}, then" in renamed
    assert waits == []


def test_a_network_that_goes_away_in_the_middle_is_waited_for(server, tmp_path, monkeypatch):
    steps = iter([server.stop, server.start])
    monkeypatch.setattr(
        trtdet.build.download, "time", SimpleNamespace(sleep=lambda _seconds: next(steps)())
    )
    server.plan = [cut(1000)]
    fetch(tmp_path)
    assert list(steps) == []
    assert server.ranges == [None, "bytes=1000-"]


def test_a_sign_in_page_is_told_and_costs_nothing(server, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT[:1000])
    server.plan = [page]
    assert "a web page came instead" in failure(tmp_path, DownloadError)
    fetch(tmp_path)
    assert server.ranges[-1] == "bytes=1000-"


def test_a_redirect_is_followed_with_its_range(server, tmp_path):
    server.files["/elsewhere"] = CONTENT
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT[:1000])
    server.plan = [status(302, Location="/elsewhere")]
    fetch(tmp_path)
    assert server.ranges == ["bytes=1000-", "bytes=1000-"]


@pytest.mark.parametrize("location", ["ftp://weights.invalid/x", "file:///etc/hostname"])
def test_a_redirect_to_another_protocol_is_refused(server, tmp_path, location):
    server.plan = [status(302, Location=location)]
    assert "redirect" in failure(tmp_path, DownloadError).lower()


@pytest.fixture
def secure(tmp_path_factory, monkeypatch) -> Iterator[FileServer]:
    """An https server with a certificate of its own; SSL_CERT_FILE makes it trusted."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl to make a certificate with")
    file = tmp_path_factory.mktemp("certificate") / "server.pem"
    subprocess.run(
        [openssl, "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt",
         "ec_paramgen_curve:prime256v1", "-days", "2", "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", file, "-out", f"{file}.crt"],
        check=True, capture_output=True,
    )  # fmt: skip
    file.write_bytes(file.read_bytes() + Path(f"{file}.crt").read_bytes())
    monkeypatch.setenv("SSL_CERT_FILE", f"{file}.crt")
    monkeypatch.setenv("no_proxy", "*")
    with FileServer(certificate=str(file)) as secure:
        secure.files[f"/{NAME}"] = CONTENT
        yield secure


def test_a_release_comes_over_https_and_never_by_way_of_http(secure, server, tmp_path, monkeypatch):
    monkeypatch.delenv(MIRROR_VARIABLE)
    release = Release(NAME, f"{secure.url}/{NAME}", sha256=SHA256)
    secure.plan = [status(302, Location=f"{server.url}/{NAME}")]
    assert f"redirected to {server.url}/{NAME}" in failure(tmp_path, DownloadError, release)
    assert server.ranges == []
    fetch(tmp_path, release)


def test_a_certificate_that_nobody_vouches_for_is_refused(secure, tmp_path, monkeypatch, waits):
    monkeypatch.delenv("SSL_CERT_FILE")
    release = Release(NAME, f"{secure.url}/{NAME}", sha256=SHA256)
    assert "certificate verify failed" in failure(tmp_path, DownloadError, release)
    assert waits == []


def test_what_is_not_pinned_is_not_asked_for(server, tmp_path):
    message = failure(tmp_path, CheckpointError, Release(NAME, URL))
    assert "no pinned hash" in message
    assert server.ranges == []


def test_http_is_for_mirrors_alone(server, tmp_path, monkeypatch):
    release = Release(NAME, f"{server.url}/{NAME}", sha256=SHA256)
    monkeypatch.delenv(MIRROR_VARIABLE)
    assert "is not https" in failure(tmp_path, DownloadError, release)
    monkeypatch.setenv(MIRROR_VARIABLE, "/srv/weights")
    assert "TRTDET_MIRROR=/srv/weights" in failure(tmp_path, InputError)
    assert server.ranges == []


class TestKnownSize:
    def test_another_size_is_refused_before_it_comes(self, server, tmp_path):
        release = Release(NAME, URL, sha256=SHA256, size_bytes=SIZE + 1)
        message = failure(tmp_path, DownloadError, release)
        assert "51200 bytes are offered, the release has 51201" in message
        assert list(tmp_path.iterdir()) == []

    def test_it_stands_in_for_a_length_that_is_not_announced(self, server, tmp_path):
        server.plan = [cut_unannounced(None)]
        release = Release(NAME, URL, sha256=SHA256, size_bytes=SIZE)
        assert fetch(tmp_path, release)[-1] == (SIZE, SIZE)

    def test_a_body_of_unknown_length_that_ends_early_is_resumed(self, server, tmp_path):
        server.plan = [cut_unannounced(1000)]
        fetch(tmp_path, Release(NAME, URL, sha256=SHA256, size_bytes=SIZE))
        assert server.ranges == [None, "bytes=1000-"]

    def test_a_body_without_end_is_stopped(self, server, tmp_path):
        server.files[f"/{NAME}"] = CONTENT * 100
        server.plan = [cut_unannounced(None)]
        release = Release(NAME, URL, sha256=SHA256, size_bytes=SIZE)
        message = failure(tmp_path, CheckpointError, release)
        assert f"expected sha256 {SHA256}" in message
        assert (tmp_path / f"{NAME}.refused").stat().st_size < 10 * SIZE
