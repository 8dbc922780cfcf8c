"""The kernels under compute-sanitizer: no access out of bounds, no race, nothing read unwritten."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import partial

from trtdet.benchmarks.gpu_driver import open_gpu
from trtdet.benchmarks.gpu_kernels import load_cubin
from trtdet.benchmarks.gpu_section import Bench, MissingError, Values, WrongError
from trtdet.benchmarks.gpu_state import find_program

TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")

_ERRORS_FOUND = 99  # the exit code that it is told to use
_TAIL = 600


def run(bench: Bench) -> None:
    """A row for each tool. Raises MissingError without it, pycuda, a GPU or a compiler."""
    program = find_program("compute-sanitizer")
    with open_gpu() as gpu:
        load_cubin(gpu)
    for number, tool in enumerate(TOOLS):
        seconds = max(30.0, bench.remaining_s / (len(TOOLS) - number))
        bench.row(tool, partial(_sanitize, program, tool, seconds))


def _sanitize(program: str, tool: str, seconds: float, found: Values) -> None:
    command = [program, "--tool", tool, "--error-exitcode", str(_ERRORS_FOUND)]
    command += [sys.executable, "-m", "trtdet.benchmarks.gpu_kernels"]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired as error:
        raise MissingError(f"it was not done in {seconds:.0f} s: give more --minutes") from error
    said = f"{done.stdout}\n{done.stderr}"
    summary = re.findall(r"={2,} (.*(?:SUMMARY|summary).*)", said)
    found |= {"exit code": done.returncode, "summary": "; ".join(summary)}
    if done.returncode == 0 and summary:
        return
    tail = " ".join(said.split())[-_TAIL:]
    if done.returncode == _ERRORS_FOUND:
        raise WrongError(tail)
    raise RuntimeError(f"compute-sanitizer did not run to its end: {tail}")
