"""What a sandboxed process can no longer do: tried in one, and read from the filter itself."""

from __future__ import annotations

import json
import platform
import struct
import subprocess
import sys

import pytest

pytest.importorskip("resource", reason="the sandbox is Linux's")

from trtdet.engine import sandbox
from trtdet.engine.sandbox import seccomp_program

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is Linux's")

ALLOW, REFUSE = 0x7FFF0000, 0x00050001
MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


def in_sandbox(program: str) -> object:
    """What `program` leaves in `result`, run in a process of its own after `enter_sandbox`."""
    lines = "\n".join(f"    {line}" for line in program.strip().splitlines())
    whole = f"""
import ctypes, errno, json, mmap, os, signal, socket, subprocess, sys, threading
from trtdet.engine.sandbox import enter_sandbox
def tried(action):
    try:
        action()
    except BaseException as error:
        return getattr(error, "errno", None) or type(error).__name__
    return "done"
def main():
    result = None
{lines}
    return result
lacking = enter_sandbox(4 << 30)
os.write(1, json.dumps([lacking, main()]).encode())
"""
    done = subprocess.run([sys.executable, "-c", whole], capture_output=True, check=True)
    lacking, result = json.loads(done.stdout)
    assert lacking is None
    return result


def test_nothing_but_computing_is_left():
    result = in_sandbox("""
libc = ctypes.CDLL(None, use_errno=True)
result = {
    "open": tried(lambda: os.open("/etc/passwd", os.O_RDONLY)),
    "create": tried(lambda: os.open("/tmp/trtdet-sandbox", os.O_CREAT | os.O_WRONLY)),
    "list": tried(lambda: os.listdir("/")),
    "stat": tried(lambda: os.stat("/")),
    "socket": tried(lambda: socket.socket()),
    "fork": tried(os.fork),
    "exec": tried(lambda: os.execv("/bin/true", ["true"])),
    "run": tried(lambda: subprocess.run(["/bin/true"])),
    "thread": tried(lambda: threading.Thread(target=print).start()),
    "kill": tried(lambda: os.kill(os.getppid(), 0)),
    "trace": libc.ptrace(0, 0, 0, 0),
    "code": tried(lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC)),
    "data": tried(lambda: mmap.mmap(-1, 4096)),
    "memory": tried(lambda: bytes(5 << 30)),
    "sum": sum(range(100)),
}
""")
    refused = {name: value for name, value in result.items() if value == 1}
    assert {"open", "create", "list", "stat", "socket", "fork", "exec", "kill", "code"} <= {
        *refused
    }
    assert result["run"] != "done"
    assert result["thread"] == "RuntimeError"
    assert result["trace"] == -1
    assert result["data"] == "done"
    assert result["memory"] == "MemoryError"
    assert result["sum"] == 4950


def test_where_the_system_refuses_a_filter_it_is_said_and_the_rest_goes_on():
    """Under a filter that refuses PR_SET_SECCOMP, as some containers do."""
    program = """if 1:
        import ctypes, os, platform
        from io import BytesIO
        from PIL import Image
        from trtdet.engine import sandbox
        from trtdet.engine.decode import Limits
        from trtdet.engine.isolate import IsolatedDecoder
        prctl = {"x86_64": 157, "aarch64": 167}[platform.machine()]
        steps = b"".join([
            sandbox._step(sandbox._LOAD, 0),
            sandbox._step(sandbox._JUMP_EQUAL, prctl, false=3),
            sandbox._step(sandbox._LOAD, 16),
            sandbox._step(sandbox._JUMP_EQUAL, 22, false=1),
            sandbox._step(sandbox._RETURN, sandbox._REFUSE),
            sandbox._step(sandbox._RETURN, sandbox._ALLOW),
        ])
        filter = sandbox._Program(6, steps)
        sandbox._prctl(38, 1)
        sandbox._prctl(22, 2, ctypes.addressof(filter))
        decoder = IsolatedDecoder(Limits(max_pixels=1000), print)
        decoder.ready()
        file = BytesIO()
        Image.new("RGB", (3, 2), (1, 2, 3)).save(file, "PNG")
        print(decoder.decode(file.getvalue()).tolist()[0][0])
        decoder.close()
    """
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    notice, pixels = done.stdout.splitlines()
    assert notice.startswith("decoders run in processes without a system call filter (the system")
    assert "Operation not permitted" in notice
    assert pixels == "[1, 2, 3]"


def verdict(machine: str, architecture: int, number: int, third: int = 0) -> int:
    """Run the filter of `machine` on a call, as the kernel would."""
    call = struct.pack("<IIQ6Q", number, architecture, 0, 0, 0, third, 0, 0, 0)
    program = [*struct.iter_unpack("=HBBI", seccomp_program(machine))]
    at, word = 0, 0
    while True:
        code, true, false, value = program[at]
        at += 1
        if code == 0x06:
            return value
        if code == 0x20:
            (word,) = struct.unpack_from("<I", call, value)
        else:
            at += true if (word == value if code == 0x15 else word & value) else false


@pytest.mark.parametrize("machine", MACHINES)
def test_the_filter_allows_its_list_and_nothing_else(machine: str):
    column = [*MACHINES].index(machine)
    here, elsewhere = MACHINES[machine], MACHINES[[*MACHINES][1 - column]]
    plain = {numbers[column] for numbers in sandbox._ALLOWED.values()}
    memory = {numbers[column] for numbers in sandbox._ALLOWED_WITHOUT_EXEC.values()}
    for number in [*range(600), *range(0x40000000, 0x40000200)]:
        expected = ALLOW if number in plain | memory else REFUSE
        assert verdict(machine, here, number) == expected
        assert verdict(machine, elsewhere, number) == REFUSE
        with_exec = ALLOW if number in plain else REFUSE
        assert verdict(machine, here, number, third=4) == with_exec
        assert verdict(machine, here, number, third=7) == with_exec


def test_a_machine_without_a_filter_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    monkeypatch.setattr(sandbox, "_limit", lambda *_: None)
    monkeypatch.setattr(sandbox, "_prctl", lambda *_: None)
    assert sandbox.enter_sandbox(1 << 30) == "there is none for riscv64"
