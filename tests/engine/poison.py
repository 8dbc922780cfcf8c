"""How rows become paths in a process of a fleet, with accidents. It is pickled by its name."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from trtdet.engine.table import Row


@dataclass(frozen=True)
class Accidents:
    """`poison` kills the process, `once NAME` does so the first time, `slow NAME` takes long."""

    marks: Path

    def __call__(self, row: Row) -> Path:
        name = Path(row.filename).name
        if name == "poison":
            os.kill(os.getpid(), signal.SIGKILL)
        if name.startswith("once"):
            mark = self.marks / name
            if not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return Path(row.filename).with_name(name.removeprefix("once "))
        if name.startswith("slow"):
            time.sleep(2.0)
            return Path(row.filename).with_name(name.removeprefix("slow "))
        return Path(row.filename)
