"""`trtdet doctor`: what this machine can do, and the exact reason for what it cannot."""

from __future__ import annotations

import platform

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
    from trtdet.engine.backends import BACKENDS, backend_status
    from trtdet.engine.machine import EIGHT_BIT, read_machine
    from trtdet.engine.store import store_folder, stored_bundles

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
    for name in BACKENDS:
        status = backend_status(name)
        _row(name, f"ready, {status.version}" if status.reason is None else f"no: {status.reason}")
    _row("plans", builder_status())
    _row("building", _build_status())
    _row("store", f"{store_folder()}: {', '.join(stored_bundles()) or 'no bundle yet'}")


def _row(name: str, text: str) -> None:
    click.echo(f"{name:<10} {text}")


def _build_status() -> str:
    """Import what building needs: only that shows whether it would work."""
    import importlib

    for name in ("torch", "onnx", "onnxscript", "onnxsim", "safetensors"):
        try:
            importlib.import_module(name)
        except (ImportError, OSError) as error:
            return f"no: {name}: {error} (pip install 'trtdet[build]')"
    return "ready"
