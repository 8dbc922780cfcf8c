"""Where the compiled CUDA kernels lie: a cubin for each generation of GPU, beside the plans.

They depend on their source and the GPU alone, so a bundle that cannot be written has them in the
store. They are code: see `trtdet.engine.built`.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from trtdet.engine.built import read_code, writable_place, write_code
from trtdet.engine.cubin import SOURCE, compile_cubin
from trtdet.engine.cuda import Gpu
from trtdet.engine.staging import KERNELS
from trtdet.engine.store import store_folder
from trtdet.errors import BackendError


def find_kernels(
    bundle: Path, target: str, *, trust: bool = False, on_line: Callable[[str], None]
) -> bytes | None:
    """The kernels for GPUs like "sm_86", for the bundle in the folder `bundle`; None if missing."""
    for folder in _folders(bundle):
        if (cubin := read_code(folder / _name(target), trust, on_line)) is not None:
            return cubin
    return None


def write_kernels(bundle: Path, target: str, *, force: bool = False) -> Path:
    """Compile them, where they are not there yet, or with `force` again.

    Raises BackendError without a compiler, or where they cannot be written.
    """
    folders = _folders(bundle)
    for folder in folders:
        if not force and read_code(folder / _name(target)) is not None:
            return folder / _name(target)
    path = writable_place(*folders) / _name(target)
    cubin = compile_cubin(target)
    try:
        write_code(path, cubin)
    except OSError as error:
        raise BackendError(f"cannot write {path}: {error}") from error
    return path


def check_kernels(path: Path, device: int = 0) -> None:
    """Load the kernels at `path` on a GPU once, and take them away where it refuses them.

    A compiler that is newer than the driver makes some that do not load. Raises BackendError.
    """
    gpu = Gpu(device)
    try:
        with gpu.current():
            gpu.kernels(path.read_bytes(), KERNELS, "PPP")
    except (gpu.driver.Error, MemoryError) as error:
        path.unlink(missing_ok=True)
        reason = " ".join(str(error).split())
        raise BackendError(f"{gpu.name} does not load {path.name} ({reason})") from error
    finally:
        gpu.close()


def _folders(bundle: Path) -> tuple[Path, Path]:
    return bundle / "kernels", store_folder() / "kernels"


def _name(target: str) -> str:
    return f"{target}-{sha256(SOURCE.read_bytes()).hexdigest()[:12]}.cubin"
