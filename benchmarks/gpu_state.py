"""What a GPU is doing, by nvidia-smi, and other programs that are asked on the way."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

from trtdet.benchmarks.gpu_section import MissingError, Values

_GAUGES = ("clocks.sm", "clocks.mem", "power.draw", "temperature.gpu")

_TIMEOUT_S = 30.0


def query_gpu(fields: tuple[str, ...]) -> Values:
    """What nvidia-smi says of the first GPU; what it does not know is left out."""
    program = find_program("nvidia-smi")
    try:
        return _query(program, fields)
    except MissingError:  # it refuses a whole question for one unknown word
        found: Values = {}
        for name in fields:
            try:
                found |= _query(program, (name,))
            except MissingError as error:
                reason = error
        if not found:
            raise reason from None
        return found


@contextmanager
def gauges(every_ms: int = 200) -> Iterator[Values]:
    """Clocks, power and temperature while the block runs: medians, filled in when it ends.

    Without nvidia-smi there are none, and the block runs all the same.
    """
    found: Values = {}
    program = shutil.which("nvidia-smi")
    if program is None:
        yield found
        return
    with tempfile.TemporaryFile("w+") as output:
        command = [program, f"--id={_gpu_id()}", f"--query-gpu={','.join(_GAUGES)}"]
        command += ["--format=csv,noheader,nounits", f"--loop-ms={every_ms}"]
        watcher = subprocess.Popen(command, stdout=output, stderr=subprocess.DEVNULL)
        try:
            yield found
        finally:
            watcher.terminate()
            watcher.wait()
        output.seek(0)
        lines = [line.split(",") for line in output.read().splitlines()]
    for index, name in enumerate(_GAUGES):
        numbers = [number for line in lines if (number := _number(line, index)) is not None]
        if numbers:
            found[name] = median(numbers)


def find_program(name: str) -> str:
    """The path of a program. Raises MissingError."""
    program = shutil.which(name)
    if program is None:
        raise MissingError(f"{name} is not on PATH")
    return program


def said(command: list[str]) -> str:
    """What a program prints. Raises MissingError with its own words where it fails."""
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MissingError(f"{command[0]}: {error}") from error
    text = (done.stdout or done.stderr).strip()
    if done.returncode != 0 or not text:
        raise MissingError(f"{command[0]} ended with {done.returncode}: {text or 'nothing said'}")
    return text


def _gpu_id() -> str:
    """The first GPU as CUDA counts them: nvidia-smi does not look at CUDA's variable."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0] or "0"


def _query(program: str, fields: tuple[str, ...]) -> Values:
    command = [program, f"--id={_gpu_id()}", f"--query-gpu={','.join(fields)}"]
    line = said([*command, "--format=csv,noheader"])
    values = dict(zip(fields, (each.strip() for each in line.split(",")), strict=False))
    return {name: value for name, value in values.items() if not value.startswith("[")}


def _number(line: list[str], index: int) -> float | None:
    try:
        return float(line[index])
    except (IndexError, ValueError):  # cut off, or "[N/A]"
        return None
