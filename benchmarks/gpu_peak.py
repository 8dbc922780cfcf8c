"""How much of what a GPU can multiply a network uses.

Peaks are dense and are those of the data sheets, at the boost clock: 16 and 8 bits on the tensor
cores, 32 bits outside of them, since TF32 is off. GeForce cards sum half products in half, or in
float32 at half that rate; the larger rate stands here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from trtdet.benchmarks.gpu_section import MissingError


@dataclass(frozen=True)
class Peak:
    """10^12 operations per second, a multiply-add being two."""

    fp16: float
    int8: float
    fp32: float

    def of(self, precision: str) -> float:
        """For a bundle's precision."""
        return {"fp16": self.fp16, "int8": self.int8}.get(precision, self.fp32)


# By the whole name that the driver gives, but for "NVIDIA" and "GeForce": a "Ti", "SUPER" or
# "Laptop GPU" is another card. Sources: NVIDIA's data sheets of the data-centre cards, and the
# appendices of the GA102, Ada and RTX Blackwell white papers.
_PEAKS = {
    r"B200": Peak(2250, 4500, 75),
    r"H200|GH200.*|H100 80GB HBM3|H100 SXM.*|H800": Peak(989.4, 1978.9, 66.9),
    r"H100 PCIe": Peak(756, 1513, 51.2),
    r"H100 NVL|H200 NVL": Peak(835.5, 1671, 60),
    r"A100.*|A800.*": Peak(312, 624, 19.5),
    r"A30": Peak(165, 330, 10.3),
    r"A10": Peak(125, 250, 31.2),
    r"A40": Peak(149.7, 299.3, 37.4),
    r"L4": Peak(121, 242, 30.3),
    r"L40": Peak(181, 362, 90.5),
    r"L40S": Peak(362, 733, 91.6),
    r"(Tesla )?T4": Peak(65, 130, 8.1),
    r"RTX A6000": Peak(154.8, 309.7, 38.7),
    r"RTX 6000 Ada Generation": Peak(364.2, 728.5, 91.1),
    r"RTX 3070": Peak(81.3, 162.6, 20.3),
    r"RTX 3080": Peak(119, 238, 29.8),
    r"RTX 3090": Peak(142, 284, 35.6),
    r"RTX 4080": Peak(194.9, 389.9, 48.7),
    r"RTX 4090": Peak(330.3, 660.6, 82.6),
    r"RTX 5080": Peak(225.1, 450.2, 56.3),
    r"RTX 5090": Peak(419, 838, 104.8),
}


def peak_of(name: str) -> Peak:
    """Of a GPU by its name. Raises MissingError for one that is not in the table."""
    short = name.removeprefix("NVIDIA ").removeprefix("GeForce ")
    for pattern, peak in _PEAKS.items():
        if re.fullmatch(pattern, short) and " MIG " not in f" {short} ":
            return peak
    raise MissingError(f"no data sheet of {name} is in the table of {__name__}")
