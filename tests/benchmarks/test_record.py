"""What every result says of where it came from."""

from __future__ import annotations

from pathlib import Path

import pytest

from trtdet.benchmarks import record
from trtdet.benchmarks.record import describe_run


def test_a_checkout_has_its_commit():
    run = describe_run()
    assert run["commit"] is None or len(run["commit"].split("-")[0]) >= 7
    assert run["versions"]["numpy"]


def test_without_git_there_is_none(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert describe_run()["commit"] is None


def test_another_repository_around_the_package_is_not_its_own(monkeypatch):
    package = Path(record.trtdet.__file__).parent
    monkeypatch.setattr(record.trtdet, "__file__", str(package / "inside" / "__init__.py"))
    if describe_run()["commit"] is not None:
        pytest.fail("a package below the top of a repository took that one's commit")
