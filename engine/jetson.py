"""A Jetson's release and its power mode, which decides how fast it is, from readable files."""

from __future__ import annotations

import re
from pathlib import Path


def jetson_status(root: Path = Path("/")) -> str | None:
    """For instance "L4T 36.4, power mode MAXN (0)"; None on any other machine."""
    release = _read(root / "etc/nv_tegra_release")
    found = re.search(r"R(\d+).*?REVISION: ([\d.]+)", release)
    if not found:
        return None
    return f"L4T {found[1]}.{found[2]}, {_power_mode(root)}"


def _power_mode(root: Path) -> str:
    """nvpmodel keeps the mode's number; its names are in its configuration."""
    now = re.search(r"pmode:0*(\d+)", _read(root / "var/lib/nvpmodel/status"))
    if not now:
        return "power mode unknown (`sudo nvpmodel -q`)"
    names = re.findall(r"ID=(\d+)\s+NAME=(\S+)", _read(root / "etc/nvpmodel.conf"))
    name = dict(names).get(now[1], "of another configuration")
    return f"power mode {name} ({now[1]})"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
