"""Where the compiled CUDA kernels lie: a cubin for each generation of GPU, beside the plans.

They depend on their source and the GPU alone, so a bundle that cannot be written has them in the
store. They are code: see `trtdet.engine.built`.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from trtdet.engine.atomic import check_writable
from trtdet.engine.built import read_code, write_code
from trtdet.engine.cubin import SOURCE, compile_cubin
from trtdet.engine.store import store_folder


def find_kernels(
    bundle: Path, target: str, *, trust: bool = False, on_line: Callable[[str], None]
) -> bytes | None:
    """The kernels for GPUs like "sm_86", for the bundle in the folder `bundle`; None if missing."""
    for folder in _folders(bundle):
        if (cubin := read_code(folder / _name(target), trust, on_line)) is not None:
            return cubin
    return None


def write_kernels(bundle: Path, target: str) -> Path:
    """Compile them, where they are not there yet. Raises BackendError without a compiler."""
    own, stored = _folders(bundle)
    for folder in (own, stored):
        if read_code(folder / _name(target)) is not None:
            return folder / _name(target)
    try:
        check_writable((own if own.exists() else bundle) / "kernels")
    except OSError:
        own = stored
    path = own / _name(target)
    write_code(path, compile_cubin(target))
    return path


def _folders(bundle: Path) -> tuple[Path, Path]:
    return bundle / "kernels", store_folder() / "kernels"


def _name(target: str) -> str:
    return f"{target}-{sha256(SOURCE.read_bytes()).hexdigest()[:12]}.cubin"
