"""A certificate: what was checked of an engine on this machine, and what was found."""

from __future__ import annotations

import textwrap
from dataclasses import asdict, dataclass, field
from typing import Any

_KEY_WIDTH, _WIDTH = 13, 100


@dataclass(frozen=True)
class Check:
    """One thing that was promised. `passed` None: it could not be tried, and `found` says why."""

    name: str
    passed: bool | None
    found: str
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Certificate:
    """All checks of an engine."""

    engine: str
    detector: str
    precision: str
    weights: str  # whether they are released ones
    backend: str
    checks: tuple[Check, ...]
    about: dict[str, Any]  # machine, versions, commit, and what the engine was built with

    @property
    def failed(self) -> list[str]:
        """The names of the checks that did not pass."""
        return [each.name for each in self.checks if each.passed is False]

    @property
    def verdict(self) -> str:
        """In a few words."""
        if self.failed:
            return f"NOT verified: {', '.join(self.failed)}"
        untried = [each.name for each in self.checks if each.passed is None]
        return f"verified, without {', '.join(untried)}" if untried else "verified"

    def to_json(self) -> dict[str, Any]:
        """Everything, for a file."""
        record = asdict(self)
        about = record.pop("about")
        return {"verdict": self.verdict, **record, "checks": list(record["checks"]), **about}

    def __str__(self) -> str:
        machine, versions = self.about["machine"], self.about["versions"]
        lines = [
            ("certificate", f"{self.engine} ({self.detector}, {self.precision}) on {self.backend}"),
            ("weights", self.weights),
            ("verdict", self.verdict),
            *((each.name, f"{_SAID[each.passed]}: {each.found}") for each in self.checks),
            ("machine", f"{machine['cores']} cores of {machine['cpu']}"),
            ("versions", ", ".join(f"{name} {each}" for name, each in versions.items())),
            ("built with", _differences(self.about["built_with"], versions)),
        ]
        return "\n".join(_line(key, text) for key, text in lines if text)


_SAID = {True: "ok", False: "FAILED", None: "not tried"}


def _differences(built_with: dict[str, str], versions: dict[str, str]) -> str:
    """The tools of the build that have another version here."""
    others = [
        f"{name} {version}"
        for name, version in built_with.items()
        if versions.get(name, version) != version
    ]
    return ", ".join(others) or "the same versions"


def _line(key: str, text: str) -> str:
    return "\n".join(
        textwrap.wrap(
            text,
            _WIDTH,
            initial_indent=f"{key:<{_KEY_WIDTH}}",
            subsequent_indent=" " * _KEY_WIDTH,
            break_long_words=False,
            break_on_hyphens=False,
        )
    )
