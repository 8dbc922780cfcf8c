"""`trtdet submission`: an engine, packed for the VIP Cup 2022's contract."""

from __future__ import annotations

import platform
import shutil
from importlib.metadata import version
from pathlib import Path

import click

from trtdet.errors import InputError

# What scoring needs beside the engine's own package.
_SOURCES = (
    "__init__.py",
    "cli.py",
    "errors.py",
    "commands/__init__.py",
    "commands/gpu_options.py",
    "commands/options.py",
    "commands/score.py",
    "commands/score_here.py",
    "commands/score_job.py",
    "commands/score_report.py",
)
_REQUIREMENTS = ("numpy", "opencv-python-headless", "Pillow", "click", "rich", "openvino")


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--engine",
    metavar="NAME_OR_PATH",
    help="A bundle [the store's default, else the starter in the package].",
)
def command(folder: Path, engine: str | None) -> None:
    """Make DIR a submission: `python main.py input.csv output.csv`, and all that it needs.

    The engine, the runtime's source, the versions that it was made with (requirements.txt) and a
    Dockerfile. Every image gets a number; one that cannot be read gets 0.0, and its reason stands
    in output.csv.errors.csv. No network, no store and no torch are needed where it runs.

    \b
    Example:
      trtdet submission cup --engine starter
      cd cup && pip install -r requirements.txt && python main.py input.csv output.csv
    """
    import trtdet
    from trtdet import engine as runtime
    from trtdet.engine.atomic import atomic_folder
    from trtdet.engine.bundle import PLANS, Bundle
    from trtdet.engine.ensemble import open_any
    from trtdet.engine.store import find_bundle

    bundle = find_bundle(engine)
    opened = open_any(bundle)
    if isinstance(opened, Bundle) and len(opened.outputs) > 1:
        raise InputError(
            f"{opened.name} gives {len(opened.outputs)} logits, and the contract has one: build "
            "each of its detectors by itself, and join them with `trtdet ensemble`"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is not empty: give a folder that is, or is not there yet")
    source = Path(trtdet.__file__).parent
    with atomic_folder(folder) as out:
        shutil.copytree(bundle, out / "bundle", ignore=shutil.ignore_patterns(PLANS))
        for file in _SOURCES:
            (out / "trtdet" / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / file, out / "trtdet" / file)
        (out / "trtdet/engine").mkdir()
        for path in sorted(Path(next(iter(runtime.__path__))).glob("*.py")):
            shutil.copy(path, out / "trtdet/engine")
        pins = "".join(f"{each}=={version(each)}\n" for each in _REQUIREMENTS)
        (out / "requirements.txt").write_text(pins)
        (out / "main.py").write_text(_MAIN)
        python = ".".join(platform.python_version_tuple()[:2])
        (out / "Dockerfile").write_text(_DOCKERFILE.format(python=python, name=opened.name))
    click.echo(str(folder))


_MAIN = '''"""Score the images of a CSV: python main.py input.csv output.csv

input.csv has a column `filename`, relative to its own folder; output.csv gets filename,logit, and a
logit above 0 means synthetic. An image that cannot be read gets 0.0.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from trtdet.cli import leave, run  # noqa: E402
from trtdet.commands.score_report import EXIT_FAILED_ROWS  # noqa: E402

if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python main.py input.csv output.csv")
    bundle = str(HERE / "bundle")
    sys.argv[1:] = ["score", "--engine", bundle, "--failed-logit", "0", "--", *sys.argv[1:]]
    code = run()
    leave(0 if code == EXIT_FAILED_ROWS else code)  # a row that failed has its number
'''

_DOCKERFILE = """# {name}, by trtdet. Build and run:
#   docker build -t submission .
#   docker run --rm -v "$PWD/data:/data" submission /data/input.csv /data/output.csv
FROM python:{python}-slim
WORKDIR /submission
COPY requirements.txt .
RUN pip install --no-cache-dir -r requirements.txt
COPY . .
ENTRYPOINT ["python", "main.py"]
"""
