"""Clocks, temperature, power, and what others took of the cores, while a block runs.

Each source that a machine has is asked a few times a second; one that it has not says why. NVML is
asked through `nvidia-ml-py`, a Jetson through `tegrastats`, CPUs through `/proc` and `/sys`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any

_EVERY_S = 0.25

Reading = dict[str, float]  # by the gauge's name, with its unit
Ask = Callable[[], Reading]


class NoGaugeError(Exception):
    """This machine has no such source: the message says why."""


@contextmanager
def gauges() -> Iterator[dict[str, Any]]:
    """Filled in when the block ends: of each gauge the median and the ends, or why it has none."""
    found: dict[str, Any] = {}
    with ExitStack() as stack:
        asks: dict[str, Ask] = {}
        for name, open_source in _SOURCES.items():
            try:
                asks[name] = open_source(stack)
            except NoGaugeError as error:
                found[name] = f"not available: {error}"
        readings: dict[str, list[Reading]] = defaultdict(list)
        stop, others = threading.Event(), _Others()

        def watch() -> None:
            while not stop.wait(_EVERY_S):
                for name, ask in asks.items():
                    with suppress(Exception):  # one reading less
                        readings[name].append(ask())

        watcher = threading.Thread(target=watch, name="gauges", daemon=True)
        watcher.start()
        try:
            yield found
        finally:
            stop.set()
            watcher.join()
            for name in asks:
                found[name] = _summary(readings[name]) or "not available: it gave no reading"
            found["other processes"] = others.share()


def _summary(readings: list[Reading]) -> dict[str, dict[str, float]]:
    by_gauge: dict[str, list[float]] = defaultdict(list)
    for reading in readings:
        for name, value in reading.items():
            by_gauge[name].append(value)
    return {
        name: {"median": median(values), "low": min(values), "high": max(values)}
        for name, values in by_gauge.items()
    }


class _Others:
    """The part of the machine's cores that other processes take, from now on."""

    def __init__(self) -> None:
        self._start = _busy_and_total()
        self._own = sum(os.times()[:4])

    def share(self) -> float | str:
        """0 to 1 of all cores, or why it is not known."""
        now = _busy_and_total()
        if self._start is None or now is None:
            return "not available: there is no /proc/stat"
        ticks = os.sysconf("SC_CLK_TCK")
        busy, total = (after - before for after, before in zip(now, self._start, strict=True))
        own = (sum(os.times()[:4]) - self._own) * ticks
        return round(max(0.0, busy - own) / total, 3) if total else 0.0


def _busy_and_total() -> tuple[float, float] | None:
    """Ticks of all cores since the machine started: not idle, and all."""
    try:
        fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    except (OSError, IndexError):
        return None
    ticks = [float(each) for each in fields]
    idle = ticks[3] + ticks[4]
    return sum(ticks) - idle, sum(ticks)


def _cpu_clock(_stack: ExitStack) -> Ask:
    files = sorted(Path("/sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))
    if files:
        return lambda: {"MHz": median(int(each.read_text()) / 1000 for each in files)}

    def from_cpuinfo() -> Reading:
        text = Path("/proc/cpuinfo").read_text()
        return {"MHz": median(map(float, re.findall(r"^cpu MHz\s*: ([\d.]+)", text, re.MULTILINE)))}

    try:
        from_cpuinfo()
    except (OSError, ValueError) as error:
        raise NoGaugeError("the kernel shows no clock") from error
    return from_cpuinfo


def _cpu_temperature(_stack: ExitStack) -> Ask:
    zones = sorted(Path("/sys/class/thermal").glob("thermal_zone*/temp"))
    sensors = sorted(Path("/sys/class/hwmon").glob("hwmon*/temp*_input"))
    if not zones and not sensors:
        raise NoGaugeError("the kernel shows no sensor (a virtual machine has none)")
    return lambda: {"°C": max(int(each.read_text()) / 1000 for each in zones or sensors)}


def _cpu_power(_stack: ExitStack) -> Ask:
    """From the energy counter of the packages."""
    counters = sorted(Path("/sys/class/powercap").glob("intel-rapl:[0-9]*/energy_uj"))
    counters = [each for each in counters if each.parent.name.count(":") == 1]
    try:
        joules = [sum(int(each.read_text()) for each in counters) / 1e6]
    except OSError as error:
        raise NoGaugeError(f"RAPL: {error.strerror or error}") from error
    if not counters:
        raise NoGaugeError("the kernel shows no energy counter (RAPL)")
    times = [time.monotonic()]

    def ask() -> Reading:
        joules.append(sum(int(each.read_text()) for each in counters) / 1e6)
        times.append(time.monotonic())
        return {"W": (joules[-1] - joules[-2]) / (times[-1] - times[-2])}

    return ask


def _nvml(stack: ExitStack) -> Ask:
    try:
        import pynvml  # type: ignore[import-not-found]
    except ImportError as error:
        raise NoGaugeError("pip install nvidia-ml-py") from error
    try:
        pynvml.nvmlInit()
        stack.callback(pynvml.nvmlShutdown)
        gpu = pynvml.nvmlDeviceGetHandleByIndex(0)
    except pynvml.NVMLError as error:
        raise NoGaugeError(str(error)) from error
    questions: dict[str, Callable[[], float]] = {
        "W": lambda: pynvml.nvmlDeviceGetPowerUsage(gpu) / 1000,
        "SM MHz": lambda: pynvml.nvmlDeviceGetClockInfo(gpu, pynvml.NVML_CLOCK_SM),
        "memory MHz": lambda: pynvml.nvmlDeviceGetClockInfo(gpu, pynvml.NVML_CLOCK_MEM),
        "°C": lambda: pynvml.nvmlDeviceGetTemperature(gpu, pynvml.NVML_TEMPERATURE_GPU),
        "% busy": lambda: pynvml.nvmlDeviceGetUtilizationRates(gpu).gpu,
    }

    def ask() -> Reading:
        reading = {}
        for name, question in questions.items():
            with suppress(pynvml.NVMLError):  # a board that does not know
                reading[name] = float(question())
        return reading

    return ask


def _tegrastats(stack: ExitStack) -> Ask:
    program = shutil.which("tegrastats")
    if program is None:
        raise NoGaugeError("tegrastats is not on PATH (a Jetson has it)")
    process = subprocess.Popen(
        [program, "--interval", str(int(1000 * _EVERY_S))],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )

    def end() -> None:
        process.terminate()
        process.wait()

    stack.callback(end)
    return lambda: read_tegrastats(process.stdout.readline() if process.stdout else "")


def read_tegrastats(line: str) -> Reading:
    """A line of `tegrastats`: temperatures, the GPU's load, and power, the whole board's first."""
    heat = re.findall(r"(\w+)@([\d.]+)C", line)
    power = re.findall(r"(VDD_\w+|POM_\w+|VIN_\w+) (\d+)(?:mW|/)", line)  # JetPack 4 has no unit
    reading = {f"{name} °C": float(value) for name, value in heat}
    reading |= {f"{name} W": int(value) / 1000 for name, value in power}
    if load := re.search(r"GR3D_FREQ (\d+)%", line):
        reading["GPU % busy"] = float(load[1])
    return reading


_SOURCES: dict[str, Callable[[ExitStack], Ask]] = {
    "CPU clock": _cpu_clock,
    "CPU temperature": _cpu_temperature,
    "CPU power": _cpu_power,
    "GPU (NVML)": _nvml,
    "Jetson (tegrastats)": _tegrastats,
}
