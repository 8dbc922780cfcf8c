"""How a plan is compiled, beyond what for: the options of `trtdet compile`."""

from __future__ import annotations

from dataclasses import dataclass

from trtdet.engine.plan_key import VERSION_COMPATIBLE
from trtdet.errors import InputError

Batch = int | tuple[int, int, int]  # one size, or the least, the best and the largest

# By default TensorRT may round the factors of FP32 products to TF32 (10 bits of mantissa), which
# moves scores. Where a graph says float32, the paper's scores are wanted.
TF32_OFF = ("tf32", "off")


@dataclass(frozen=True)
class PlanSettings:
    """What the builder is told. None leaves a setting to TensorRT."""

    workspace_mib: int | None = None  # the most GPU memory that a layer may take for its own
    level: int | None = None  # 0 to 5: how long the builder looks for faster kernels
    version_compatible: bool = False  # a plan for later versions too, and for the lean runtime
    timing_cache: bool = True  # keep what was measured of kernels: later builds are quicker

    def __post_init__(self) -> None:
        if self.workspace_mib is not None and self.workspace_mib < 1:
            raise InputError(f"no workspace has {self.workspace_mib} MiB: give 1 or more")
        if self.level is not None and not 0 <= self.level <= 5:
            raise InputError(f"the builder has no level {self.level}: give 0 to 5")

    def options(self) -> list[tuple[str, str]]:
        """The part of a plan's key that they are; what was left to TensorRT is not in it.

        The timing cache is no part of it: with and without, the plan is one that was measured.
        """
        named = {
            "workspace_mib": self.workspace_mib,
            "level": self.level,
            VERSION_COMPATIBLE: "on" if self.version_compatible else None,
        }
        given = [(name, str(value)) for name, value in named.items() if value is not None]
        return [TF32_OFF, *given]
