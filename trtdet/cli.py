"""The command line: thin. Every command is a module of its own, imported when it is called.

Exit codes: 0 done; 1 the reader of standard output went away; 2 wrong input, nothing was scored;
3 done, but some rows have no score; 4 the backend failed; 5 the engine does not give its recorded
scores; 6 an engine in fewer bits is beyond its limits, or one was not verified; 130 interrupted.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import click

from trtdet import __version__
from trtdet.errors import TrtdetError

# command: its module's one-line help. Kept here so that `trtdet --help` imports no command.
COMMANDS = {
    "score": "Score the images of a CSV.",
    "demo": "Score a dozen drawn images, and show the scores on a page.",
    "fetch": "Fetch released weights, and verify them.",
    "build": "Turn a checkpoint into a bundle that scores.",
    "ensemble": "Join bundles that decide together.",
    "submission": "Pack an engine for the VIP Cup's contract.",
    "train": "Train a detector on labelled images.",
    "evaluate": "Measure detectors on labelled images, side by side.",
    "cup-protocol": "Crop, resize and compress images as the VIP Cup did.",
    "calibrate": "Choose calibration images; fit the decision.",
    "compile": "Compile a bundle's TensorRT plans.",
    "models": "List the detectors that can be built.",
    "inspect": "Show what a bundle is.",
    "bench": "Measure how fast an engine is, and what holds it back.",
    "verify": "Check that an engine holds what was promised of it.",
    "doctor": "Show what this machine can do.",
}


class _LazyGroup(click.Group):
    """A group whose commands live in `trtdet.commands.<name>`, dashes as underscores, each as
    `command`.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"trtdet.commands.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.command(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="trtdet")
def cli() -> None:
    """Run synthetic-image detectors: the paper's scores at the hardware's speed.

    \b
    Example:
      trtdet score input.csv output.csv
      trtdet build --model ferretnet-s
    """


def main() -> None:
    """The console script."""
    leave(run())


def run() -> int:
    """What the command line asks for. Click's errors and ours become a message and an exit code."""
    _replace_closed_streams()
    # A job scheduler's SIGTERM unwinds like Ctrl-C, so that temporary files are removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code: int = cli.main(prog_name="trtdet", standalone_mode=False) or 0
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except TrtdetError as error:
        click.echo(f"Error: {error}", err=True)
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        code = 130
    except OSError as error:  # a full disk, a missing right: the system's words say what to do
        where = f" ({error.filename})" if error.filename else ""
        click.echo(f"Error: {error.strerror or error}{where}", err=True)
        code = 2
    return code


def leave(code: int) -> NoReturn:
    """End the process, at once where a decoder that was given up still runs in a thread.

    The interpreter would be taken down under it, and C++ that comes back to it then aborts.
    """
    pool = sys.modules.get("trtdet.engine.decode_pool")
    if pool is not None and pool.abandoned_decoders_run():
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):  # nobody reads it any more
                stream.flush()
        os._exit(code)
    sys.exit(code)


def _replace_closed_streams() -> None:
    """A service may start us with a standard stream closed: nothing is then read, or written."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115 - open to the end
