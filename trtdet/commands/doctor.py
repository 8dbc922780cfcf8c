"""`trtdet doctor`: what this machine can do, and the exact reason for what it cannot."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from pathlib import Path

import click


@click.command()
def command() -> None:
    """Show the machine, the backends and the builders, each with the reason why not.

    \b
    Example:
      trtdet doctor
    """
    import trtdet
    from trtdet.build.builder import builder_status
    from trtdet.engine.backends import OPENVINO, backend_status
    from trtdet.engine.jetson import jetson_status
    from trtdet.engine.machine import EIGHT_BIT, read_machine
    from trtdet.engine.store import bundle_folder, store_folder, stored_bundles
    from trtdet.engine.tensorrt_status import find_pieces

    machine = read_machine()
    has = [name for name, present in machine.features.items() if present]
    lacks = [name for name, present in machine.features.items() if not present]
    _row("trtdet", f"{trtdet.__version__}, Python {platform.python_version()}")
    _row("system", machine.system)
    _row("cpu", f"{machine.cpu}, {machine.cores} cores for this process")
    _row(
        "features",
        (", ".join(has) or "none known") + (f"; not {', '.join(lacks)}" if lacks else ""),
    )
    if not any(machine.features.get(name) for name in EIGHT_BIT):
        _row("int8", "no 8-bit instructions here: INT8 engines would saturate and are no faster")
    _row("memory", f"{machine.memory_bytes / 2**30:.1f} GiB")
    if board := jetson_status():
        _row("jetson", board)
    pieces = find_pieces()
    missing = [piece.name for piece in pieces if piece.reason and not piece.optional]
    _row("tensorrt", f"no, without {', '.join(missing)}" if missing else "ready")
    for piece in pieces:
        _row(f"  {piece.name}", piece.found or f"no: {piece.reason}")
    status = backend_status(OPENVINO)
    _row(
        "openvino", f"ready, {status.version}" if status.reason is None else f"no: {status.reason}"
    )
    _row("compiling", builder_status())
    _row("  kernels", _kernel_compiler())
    _row("building", _build_status())
    _row("store", f"{store_folder()}: {', '.join(stored_bundles()) or 'no bundle yet'}")
    for name in stored_bundles():
        for line in _compiled(bundle_folder(name) / "plans", bundle_folder(name) / "kernels"):
            _row("  plan", f"{name}: {line}")
    plans = sorted((store_folder() / "plans").glob("*"))  # of bundles that cannot be written
    for line in _compiled(*plans, store_folder() / "kernels"):
        _row("  plan", f"the store's: {line}")


def _row(name: str, text: str) -> None:
    click.echo(f"{name:<16} {text}")


def _compiled(*folders: Path) -> Iterator[str]:
    """A line for each plan in the folders, and each GPU that there are kernels for."""
    from trtdet.engine.built import read_code
    from trtdet.engine.plans import stored_plans

    for folder in folders:
        for plan in stored_plans(folder):
            ours = read_code(plan.path, expected=plan.plan_sha256) is not None
            judged = f", {plan.verdict}" if plan.verdict else ""
            yield f"{plan.path.name}{judged if ours else ', not compiled here: not loaded'}"
        for path in sorted(folder.glob("*.cubin")):
            ours = read_code(path) is not None
            yield f"{path.name}{'' if ours else ', not compiled here: not loaded'}"


def _kernel_compiler() -> str:
    from trtdet.engine.cubin import compile_cubin
    from trtdet.errors import BackendError

    try:
        compile_cubin("sm_80")
    except BackendError as error:
        return f"no: {error}"
    return "ready"


def _build_status() -> str:
    """Import what building needs: only that shows whether it would work."""
    import importlib

    for name in ("torch", "onnx", "onnxscript", "onnxsim", "safetensors"):
        try:
            importlib.import_module(name)
        except (ImportError, OSError) as error:
            return f"no: {name}: {error} (pip install 'trtdet[build]')"
    return "ready"
