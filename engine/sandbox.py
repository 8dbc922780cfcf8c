"""What a decoding process may still do once everything is loaded: compute, and answer.

Resource limits bound its memory; a seccomp filter (Linux, x86-64 and aarch64) refuses every system
call but the few that decoding needs: no file is opened, no process started, no socket made, and no
memory becomes executable. A refused call fails with EPERM, as for a missing right, because codecs
and the C library try harmless ones and go on without.

https://docs.kernel.org/userspace-api/seccomp_filter.html
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import signal
import struct
from contextlib import suppress
from pathlib import Path

# What it may print before it dies, in bytes.
_PRINTED_BYTES = 1 << 16

_UNLIMITED = 1 << 62  # more than any machine has, and less than what the system takes for a sign

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
_SECCOMP_MODE_FILTER = 2

# AUDIT_ARCH_*, by which the kernel names the numbering of a call, and the numbers allowed in it.
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_ALLOWED = {
    "read": (0, 63),
    "write": (1, 64),
    "writev": (20, 66),
    "close": (3, 57),
    "brk": (12, 214),
    "munmap": (11, 215),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "futex": (202, 98),
    "sched_yield": (24, 124),
    "clock_gettime": (228, 113),
    "getrandom": (318, 278),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "restart_syscall": (219, 128),
    "exit": (60, 93),
    "exit_group": (231, 94),
}
_ALLOWED_WITHOUT_EXEC = {"mmap": (9, 222), "mprotect": (10, 226)}  # their third argument: PROT_*
_PROT_EXEC = 4

# Classic BPF (linux/filter.h) on `struct seccomp_data`: number, architecture, address, arguments.
_STEP = struct.Struct("=HBBI")
_LOAD, _JUMP_EQUAL, _JUMP_SET, _RETURN = 0x20, 0x15, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _THIRD_ARGUMENT = 0, 4, 32
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | 1  # SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO | EPERM


def enter_sandbox(memory_bytes: int) -> str | None:
    """Give up all rights but to compute. Returns why the filter is not on, or None.

    `memory_bytes` bounds the address space, what is mapped already included. It cannot be undone.
    """
    _limit(resource.RLIMIT_AS, memory_bytes)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NPROC, 0)
    _limit(resource.RLIMIT_FSIZE, _PRINTED_BYTES)
    _limit(resource.RLIMIT_NOFILE, 0)  # what is open stays open
    _prctl(_PR_SET_DUMPABLE, 0)
    machine = platform.machine()
    if machine not in _ARCHITECTURES:
        return f"there is none for {machine}"
    steps = seccomp_program(machine)
    program = _Program(len(steps) // _STEP.size, steps)
    try:
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
        _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(program))
    except OSError as error:
        return f"the system refuses it: {error.strerror}"
    return None


def die_with(parent: int) -> None:
    """Be killed when the thread that started this process ends, and before others in need."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it had ended before
        os._exit(1)
    with suppress(OSError):  # /proc may not be there
        Path("/proc/self/oom_score_adj").write_text("1000")


def seccomp_program(machine: str) -> bytes:
    """The filter for "x86_64" or "aarch64"."""
    architecture = _ARCHITECTURES[machine]
    column = list(_ARCHITECTURES).index(machine)
    program = [
        _step(_LOAD, _ARCHITECTURE),
        _step(_JUMP_EQUAL, architecture, true=1),
        _step(_RETURN, _REFUSE),
        _step(_LOAD, _NUMBER),
    ]
    for numbers in _ALLOWED.values():
        program += [_step(_JUMP_EQUAL, numbers[column], false=1), _step(_RETURN, _ALLOW)]
    for numbers in _ALLOWED_WITHOUT_EXEC.values():
        program += [
            _step(_JUMP_EQUAL, numbers[column], false=4),
            _step(_LOAD, _THIRD_ARGUMENT),
            _step(_JUMP_SET, _PROT_EXEC, false=1),
            _step(_RETURN, _REFUSE),
            _step(_RETURN, _ALLOW),
        ]
    return b"".join([*program, _step(_RETURN, _REFUSE)])


def _step(code: int, value: int, *, true: int = 0, false: int = 0) -> bytes:
    """One instruction; a jump skips so many of the next ones."""
    return _STEP.pack(code, true, false, value)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_char_p))


def _prctl(option: int, *arguments: int) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    # Five words: the kernel checks that those an option does not use are 0.
    words = [*arguments, 0, 0, 0, 0][:4]
    if library.prctl(ctypes.c_int(option), *map(ctypes.c_ulong, words)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _limit(which: int, value: int) -> None:
    """Lower a limit for good; one that is lower already stays."""
    value = min(value, _UNLIMITED)
    _, hard = resource.getrlimit(which)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(which, (value, value))
