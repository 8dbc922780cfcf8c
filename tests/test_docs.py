"""README.md and docs/ name every command and option, and none that there is not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tests.conftest import REPOSITORY
from trtdet.cli import COMMANDS, cli

README = REPOSITORY / "README.md"
PAGES = [README, *sorted((REPOSITORY / "docs").glob("*.md"))]

OPTION = re.compile(r"(?<![\w-])--[a-z][\w-]*")

# Of other programs: pip, venv, docker, tf2onnx, ray; and click's own.
OTHERS = {
    "--help", "--no-deps", "--system-site-packages", "--gpus", "--runtime", "--saved-model",
    "--output", "--head", "--address",
}  # fmt: skip


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command that can be typed, those of groups too."""
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        if not isinstance(command, click.Group):
            yield name, command
            continue
        for part in command.list_commands(click.Context(command)):
            found = command.get_command(click.Context(command), part)
            assert found is not None
            yield f"{name} {part}", found


def options(command: click.Command) -> set[str]:
    """What can be given to it by name."""
    found = (name for each in command.params for name in (*each.opts, *each.secondary_opts))
    return {name for name in found if name.startswith("--")}


ALL = dict(commands())


# What "on a GPU as `score`" stands for.
GPU = {"--device", "--slots", "--streams", "--no-graph", "--no-build", "--trust-plans"}


@pytest.mark.parametrize("name", ALL)
def test_the_readmes_row_of_a_command_has_its_options_and_no_other(name: str):
    lines = README.read_text().splitlines()
    (row,) = [
        line for line in lines if line.startswith((f"| `trtdet {name} ", f"| `trtdet {name}`"))
    ]
    named = set(OPTION.findall(row)) | (GPU if "on a GPU as `score`" in row else set())
    assert named == options(ALL[name])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_on_a_page_takes_the_options_that_it_is_given(page: Path):
    for line in page.read_text().splitlines():
        for typed in re.findall(r"(?:^    |`)trtdet ([^`#|]+)", line):
            words = typed.split()
            name = " ".join(words[:2]) if words[0] == "calibrate" else words[0]
            if name in ALL:
                unknown = set(OPTION.findall(typed)) - options(ALL[name])
                assert not unknown, f"{page.name}: `trtdet {typed}`"
            else:
                assert words[0] in (*COMMANDS, "--help"), f"{page.name}: `trtdet {typed}`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_option_on_a_page_exists(page: Path):
    sources = "\n".join(path.read_text() for path in (REPOSITORY / "benchmarks").rglob("*.py"))
    known = OTHERS.union(*map(options, ALL.values()))
    for option in set(OPTION.findall(page.read_text())) - known:
        assert f'"{option}"' in sources, f"{page.name} names {option}, which nothing takes"


def test_every_page_is_reached_from_the_readme():
    text = README.read_text()
    for page in PAGES[1:]:
        assert f"docs/{page.name}" in text, f"the README does not link {page.name}"
