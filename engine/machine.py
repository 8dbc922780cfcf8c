"""What this machine is: cores, memory, and the instructions that decide how fast a network runs."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

# What a reader wants to know, and the flags of /proc/cpuinfo (x86, then Arm) that say so.
FEATURES = {
    "AVX2": ("avx2",),
    "AVX-512": ("avx512f",),
    "VNNI (INT8)": ("avx512_vnni", "avx_vnni"),
    "AVX-512 BF16": ("avx512_bf16",),
    "AMX INT8": ("amx_int8",),
    "AMX BF16": ("amx_bf16",),
    "NEON dot product (INT8)": ("asimddp",),
    "I8MM": ("i8mm",),
    "SVE": ("sve",),
}


# Any of these sums products of 8 bits without saturating.
EIGHT_BIT = ("VNNI (INT8)", "AMX INT8", "NEON dot product (INT8)", "I8MM")


@dataclass(frozen=True)
class Machine:
    """The part of a machine that scoring depends on."""

    system: str
    cpu: str
    cores: int  # usable by this process
    memory_bytes: int
    features: dict[str, bool]  # of FEATURES, those of this architecture


def read_machine() -> Machine:
    """Look at this machine. Unknown facts are empty, never guessed."""
    model, flags = _cpu_info()
    arm = platform.machine() in ("aarch64", "arm64")
    features = {
        name: any(flag in flags for flag in wanted)
        for name, wanted in FEATURES.items()
        if (name in ("NEON dot product (INT8)", "I8MM", "SVE")) == arm
    }
    return Machine(
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        cpu=model or platform.processor() or platform.machine(),
        cores=core_count(),
        memory_bytes=_memory_bytes(),
        features=features,
    )


def core_count() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_info() -> tuple[str, set[str]]:
    """The CPU's name and its instruction flags, from Linux; elsewhere nothing is known."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "", set()
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    flags = fields.get("flags") or fields.get("Features") or ""
    return fields.get("model name", ""), set(flags.split())


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return 0


def available_memory_bytes() -> int:
    """What this process may still take: the machine's free memory, or less in a container."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvail"))
    except (OSError, StopIteration):
        free = _memory_bytes()
    try:
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text())  # "max" where there is none
        return max(0, min(free, limit - int((group / "memory.current").read_text())))
    except (OSError, ValueError):
        return free
