"""Decoding in a process: the same pixels and refusals, and every way in which the process ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.hostile import encode, encoded, hostile_files
from tests.hostile_bombs import scan_bomb
from trtdet.engine import isolate
from trtdet.engine.decode import Limits, decode_rgb, quiet_decoders
from trtdet.engine.isolate import IsolatedDecoder
from trtdet.errors import BackendError, ImageError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are sandboxed on Linux")

LIMITS = Limits(max_pixels=20_000_000)
GOOD = encode(Image.linear_gradient("L").resize((90, 70)), "PNG")


@pytest.fixture
def decoder() -> Iterator[IsolatedDecoder]:
    decoder = IsolatedDecoder(LIMITS, on_notice=pytest.fail)
    decoder.ready()
    yield decoder
    decoder.close()


def outcome(decode, data: bytes) -> tuple[object, ...]:
    """The shape and the bytes of the pixels, or the reason."""
    try:
        rgb = decode(data)
    except ImageError as reason:
        return (str(reason),)
    return rgb.shape, rgb.dtype, rgb.tobytes()


def in_process(data: bytes):
    return decode_rgb(data, max_pixels=LIMITS.max_pixels)


def pid_of(decoder: IsolatedDecoder) -> int:
    return decoder._process._popen.pid


def survives(decoder: IsolatedDecoder, before: int) -> bool:
    """Whether the next image is decoded as ever, in another process than `before`."""
    decoder.ready()
    return outcome(decoder.decode, GOOD) == outcome(in_process, GOOD) and pid_of(decoder) != before


def test_every_format_has_the_same_pixels(decoder: IsolatedDecoder):
    quiet_decoders()
    kinds = {}
    for name, data in encoded():
        kinds[name] = outcome(in_process, data)
        assert outcome(decoder.decode, data) == kinds[name], name
    assert sum(len(each) == 3 for each in kinds.values()) >= len(kinds) - 1  # all but EPS


@pytest.mark.parametrize("every", [40, pytest.param(1, marks=pytest.mark.full)])
def test_hostile_files_have_the_same_outcome(decoder: IsolatedDecoder, every: int):
    quiet_decoders()
    first = pid_of(decoder)
    for name, data in hostile_files(every):
        assert outcome(decoder.decode, data) == outcome(in_process, data), name
    assert pid_of(decoder) == first  # nothing killed it


def test_real_files_have_the_same_pixels(decoder: IsolatedDecoder, shared: Path):
    for path in sorted((shared / "images").glob("*.*"))[::9]:
        data = path.read_bytes()
        assert outcome(decoder.decode, data) == outcome(in_process, data)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT, signal.SIGBUS])
def test_a_process_that_dies_costs_its_image(decoder: IsolatedDecoder, number: signal.Signals):
    pid = pid_of(decoder)
    timer = threading.Timer(0.3, os.kill, (pid, number))
    timer.start()
    with pytest.raises(ImageError, match=rf"^its decoder (crashed|was killed) \({number.name}\)"):
        decoder.decode(scan_bomb())
    assert survives(decoder, pid)


def test_a_process_that_died_between_images_costs_the_next(decoder: IsolatedDecoder):
    pid = pid_of(decoder)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(ImageError, match=r"was killed \(SIGKILL\)"):
        decoder.decode(GOOD)
    assert survives(decoder, pid)


def test_what_ends_the_parent_softly_leaves_the_process_alone(decoder: IsolatedDecoder):
    pid = pid_of(decoder)
    assert os.getpgid(pid) != os.getpgid(0)  # Ctrl-C does not reach it
    os.kill(pid, signal.SIGTERM)
    assert outcome(decoder.decode, GOOD) == outcome(in_process, GOOD)
    assert pid_of(decoder) == pid


def test_an_abandoned_process_is_killed_at_once(decoder: IsolatedDecoder):
    pid = pid_of(decoder)
    timer = threading.Timer(0.3, decoder.abandon)
    timer.start()
    start = time.monotonic()
    with pytest.raises(ImageError, match="SIGKILL"):
        decoder.decode(scan_bomb())
    assert time.monotonic() - start < 2
    assert not Path(f"/proc/{pid}").exists()
    decoder.ready()  # and none takes its place
    with pytest.raises(ImageError, match="did not start"):
        decoder.decode(GOOD)


def test_too_much_memory_costs_one_image():
    decoder = IsolatedDecoder(Limits(max_pixels=1000, max_bytes=1 << 20), pytest.fail)
    decoder.ready()
    pid = pid_of(decoder)
    with pytest.raises(ImageError, match=r"^not enough memory to decode it$"):
        decoder.decode(bytes(1 << 30))  # the limits of the caller are the first guard
    assert survives(decoder, pid) is False  # it lives
    decoder.close()


@pytest.mark.parametrize(
    "answer",
    [
        "pack(DECODED, 6000, 4000, 0)",  # beyond the limit of pixels
        "pack(DECODED, 0, 9, 0)",
        "pack(DECODED, 2**32 - 1, 2**32 - 1, 0)",
        "pack(REFUSED, 0, 0, 2**32 - 1)",
        "pack(REFUSED, 0, 0, 0)",
        "pack(99, 1, 1, 0)",
        "pack(READY, 1, 1, 0)",
    ],
)
def test_an_answer_that_makes_no_sense_is_not_believed(answer: str, monkeypatch):
    program = f"""if 1:
        import os, sys, time
        sys.path[:] = sys.argv[6:]
        from trtdet.engine.decode_worker import DECODED, READY, REFUSED, REPLY
        pack, channel = REPLY.pack, int(sys.argv[1])
        os.write(channel, pack(READY, 0, 0, 0))
        while os.read(channel, 1 << 16):
            os.write(channel, {answer})
    """
    decoder = IsolatedDecoder(LIMITS, pytest.fail)
    with monkeypatch.context() as patch:
        patch.setattr(isolate, "_PROGRAM", program)
        decoder.ready()
        pid = pid_of(decoder)
        with pytest.raises(ImageError, match=r"^its decoder gave an answer that makes no sense$"):
            decoder.decode(GOOD)
    assert not Path(f"/proc/{pid}").exists()
    assert survives(decoder, pid)
    decoder.close()


def test_words_of_a_refusal_are_one_line(monkeypatch):
    program = (
        "import os, sys; sys.path[:] = sys.argv[6:]; channel = int(sys.argv[1])\n"
        "from trtdet.engine.decode_worker import READY, REFUSED, REPLY\n"
        "os.write(channel, REPLY.pack(READY, 0, 0, 0)); os.read(channel, 1 << 16)\n"
        "os.write(channel, REPLY.pack(REFUSED, 0, 0, 9) + b'two\\nline\\xff')"
    )
    monkeypatch.setattr(isolate, "_PROGRAM", program)
    decoder = IsolatedDecoder(LIMITS, pytest.fail)
    decoder.ready()
    with pytest.raises(ImageError, match=r"^two line\W$"):
        decoder.decode(GOOD)
    decoder.close()


def test_a_process_that_never_starts_ends_the_run_with_the_cause(monkeypatch):
    monkeypatch.setattr(isolate, "_PROGRAM", "import of_nothing")
    with pytest.raises(BackendError, match=r"does not start.*No module named 'of_nothing'"):
        IsolatedDecoder(LIMITS, pytest.fail).ready()
    monkeypatch.setattr(isolate, "_PROGRAM", "import os; os.abort()")
    with pytest.raises(BackendError, match=r"does not start: it crashed \(SIGABRT\)"):
        IsolatedDecoder(LIMITS, pytest.fail).ready()
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(BackendError, match="/nowhere/python"):
        IsolatedDecoder(LIMITS, pytest.fail).ready()


def test_restarts_leave_nothing_behind(decoder: IsolatedDecoder):
    def open_files() -> int:
        return len([*Path("/proc/self/fd").iterdir()])

    before = open_files()
    for _ in range(3):
        os.kill(pid_of(decoder), signal.SIGKILL)
        with pytest.raises(ImageError):
            decoder.decode(GOOD)
        decoder.ready()
    assert open_files() == before


def test_the_memory_of_a_large_picture_is_given_back(decoder: IsolatedDecoder, monkeypatch):
    def shared_kib() -> int:
        mapping = Path("/proc/self/smaps").read_text().split("/memfd:pixels")[1]
        return int(mapping.split("Rss:")[1].split()[0])

    large = encode(Image.new("RGB", (2000, 1000), (1, 2, 3)), "PNG")
    decoder.decode(large)
    assert shared_kib() >= 5800
    monkeypatch.setattr(isolate, "_KEPT_BYTES", 1 << 20)
    assert decoder.decode(large)[-1, -1].tolist() == [1, 2, 3]
    assert shared_kib() == 0
    assert outcome(decoder.decode, GOOD) == outcome(in_process, GOOD)


def test_the_process_sees_no_secret(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/lib")
    environment = isolate._environment()
    assert "AWS_SECRET_ACCESS_KEY" not in environment
    assert environment["LD_LIBRARY_PATH"] == "/opt/lib"


def test_it_dies_with_its_parent():
    program = """if 1:
        import os, signal
        from trtdet.engine.decode import Limits
        from trtdet.engine.isolate import IsolatedDecoder
        decoder = IsolatedDecoder(Limits(max_pixels=1000), print)
        decoder.ready()
        print(decoder._process._popen.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    pid = int(done.stdout)
    deadline = time.monotonic() + 5
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not Path(f"/proc/{pid}").exists()


def test_the_pixels_are_the_callers_own(decoder: IsolatedDecoder):
    first = decoder.decode(GOOD)
    kept = first.copy()
    decoder.decode(encode(Image.new("RGB", (90, 70), (9, 9, 9)), "PNG"))
    assert np.array_equal(first, kept)
