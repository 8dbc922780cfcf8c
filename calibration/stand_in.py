"""How well generated images stand in for real ones, as measured: what a report can say of it.

Each network was calibrated on both, and each engine judged on the same real images under the VIP
Cup's protocol: how far 99 % of its logits lie from the network's, in standard deviations of the
logit (docs/precision.md has the tables, benchmarks/precision.py makes them).
"""

from __future__ import annotations

# Detector: INT8 calibrated on generated images, INT8 calibrated on real ones.
_P99 = {
    "ferretnet-s": (0.186, 0.232),
    "tiny-ladeda": (1.726, 0.628),
    "rine": (0.369, 0.498),
    "npr": (0.382, 0.287),
    "aligned": (0.472, 0.156),
}


def how_well(detector: str, precision: str) -> str:
    """A sentence for the report of a build that used generated images."""
    if precision != "int8":
        return "only the rounding of weights is judged on them: no range depends on them"
    if detector not in _P99:
        return "how well they stand in for real ones was not measured for this detector"
    generated, real = _P99[detector]
    return (
        f"on real images, where it was measured, 99 % of the logits lay within {generated:g} "
        f"deviations, against {real:g} with real images to calibrate on"
    )
