"""Options that several commands share are given to each as one decorator; and what they hold."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def together(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """All of `click.option(...)`s, in the order of the help."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.2
    """Seconds, from `90`, `90s`, `55m`, `1h30m`."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Raises click.BadParameter for what is no duration above 0."""
        text = str(value).strip().lower()
        parts = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?", text)
        hours, minutes, seconds = parts.groups() if parts else (None, None, None)
        total = 3600 * int(hours or 0) + 60 * int(minutes or 0) + float(seconds or 0)
        if total <= 0:
            self.fail(f"'{value}' is no duration: write 55m, 1h30m or 90s", param, ctx)
        return total


class Devices(click.ParamType):  # type: ignore[type-arg]
    """GPUs by their numbers, `0,1`, or `all`."""

    name = "devices"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> list[int] | str:
        """Raises click.BadParameter for what is neither, and for a number that is there twice."""
        if value == "all":
            return "all"
        if not re.fullmatch(r"\d+(,\d+)*", str(value)):
            self.fail(f"'{value}' names no GPUs: write 0,1 or all", param, ctx)
        numbers = [int(number) for number in value.split(",")]
        if len(set(numbers)) < len(numbers):
            self.fail(f"'{value}' has a GPU twice", param, ctx)
        return numbers
