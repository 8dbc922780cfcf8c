"""What a Jetson's files say. The files are as NVIDIA's documentation shows them."""

from __future__ import annotations

import pytest

from trtdet.engine.jetson import jetson_status

RELEASE = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n"
MODES = "< POWER_MODEL ID=0 NAME=MAXN >\nCPU_ONLINE CORE_0 1\n< POWER_MODEL ID=1 NAME=MODE_15W >\n"


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("pmode:0001 fmode:quiet\n", "L4T 36.4.3, power mode MODE_15W (1)"),
        ("pmode:0000\n", "L4T 36.4.3, power mode MAXN (0)"),
        ("pmode:0007\n", "L4T 36.4.3, power mode of another configuration (7)"),
        (None, "L4T 36.4.3, power mode unknown (`sudo nvpmodel -q`)"),
    ],
)
def test_the_power_mode_is_named(tmp_path, status, expected):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/nv_tegra_release").write_text(RELEASE)
    (tmp_path / "etc/nvpmodel.conf").write_text(MODES)
    if status is not None:
        (tmp_path / "var/lib/nvpmodel").mkdir(parents=True)
        (tmp_path / "var/lib/nvpmodel/status").write_text(status)
    assert jetson_status(tmp_path) == expected


def test_any_other_machine_is_none(tmp_path):
    assert jetson_status(tmp_path) is None
