"""A plan is found by what wants to run it, or the miss says what is another."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trtdet.engine import built
from trtdet.engine.plan_key import PlanKey
from trtdet.engine.plans import (
    Plan,
    WantedPlan,
    find_plan,
    plan_folders,
    record_judged,
    remove_plan,
    stored_plan,
    stored_plans,
    writable_folder,
    write_plan,
)
from trtdet.engine.store import starter_bundle, store_folder
from trtdet.errors import BackendError, InputError, PlanMissError

TF32 = ("tf32", "off")
KEY = PlanKey("tensorrt", "10.3.0", "sm_87", "a" * 64, 8, (("compiled_on", "Orin"), TF32))
WANTED = WantedPlan("tensorrt", "10.3.0", "sm_87", "a" * 64, 8, device="Orin")


def with_options(key: PlanKey, **options: str) -> PlanKey:
    return replace(key, options=tuple(sorted({**dict(key.options), **options}.items())))


@pytest.fixture
def plans(tmp_path: Path) -> Path:
    return tmp_path / "rine" / "plans"


def write(plans: Path, key: PlanKey, data: bytes = b"plan", age_s: float = 0) -> Path:
    path = write_plan(plans, Plan(key, data))
    then = path.stat().st_mtime - age_s
    os.utime(path, (then, then))
    return path


def test_a_plan_is_found_with_its_bytes(plans: Path) -> None:
    path = write(plans, KEY)
    found = find_plan(plans, WANTED)
    assert (found.key, found.path, found.data) == (KEY, path, b"plan")
    assert stored_plan(plans, KEY) == path
    assert stored_plan(plans, with_options(KEY, level="5")) is None


@pytest.mark.parametrize(
    ("key", "wanted"),
    [
        (with_options(KEY, level="5", workspace_mib="512", anything="new"), WANTED),
        (with_options(KEY, profile="1,8,32"), WANTED),
        (with_options(KEY, profile="1,8,32"), replace(WANTED, batch=1)),
        (with_options(KEY, profile="1,8,32"), replace(WANTED, batch=32)),
        (KEY, replace(WANTED, batch=None)),
        (KEY, replace(WANTED, device=None)),
        (replace(KEY, options=(TF32,)), WANTED),  # ahead of time: timed on no GPU
        (with_options(KEY, version_compatible="on"), WANTED),
        (with_options(KEY, version_compatible="on"), replace(WANTED, version="10.13.3.9")),
        (with_options(KEY, version_compatible="on"), replace(WANTED, version="11.4.0.106")),
        (with_options(KEY, version_compatible="on"), replace(WANTED, lean=True)),
        (with_options(KEY, sides="2,1024"), replace(WANTED, tile=1024)),
        (with_options(KEY, sides="2,1024"), replace(WANTED, tile=200)),
    ],
)
def test_other_settings_do_not_matter(plans: Path, key: PlanKey, wanted: WantedPlan) -> None:
    write(plans, key)
    assert find_plan(plans, wanted).key == key


COMPATIBLE = with_options(replace(KEY, version="10.13.3.9"), version_compatible="on")


@pytest.mark.parametrize(
    ("key", "wanted", "reason"),
    [
        (KEY, replace(WANTED, version="10.13.3"), "another TensorRT version: 10.3.0 there, 10.13."),
        (KEY, replace(WANTED, version="10.3.0.1"), "version: 10.3.0 there, 10.3.0.1 here"),
        (COMPATIBLE, WANTED, "another TensorRT version: 10.13.3.9 there, 10.3.0 here"),
        (COMPATIBLE, replace(WANTED, version="12.0"), "version: 10.13.3.9 there, 12.0 here"),
        (KEY, replace(WANTED, lean=True), "it was compiled without --version-compatible"),
        (KEY, replace(WANTED, graph_sha256="b" * 64), "another graph: the bundle was built again"),
        (KEY, replace(WANTED, flavour="tensorrt-rtx"), "another library: tensorrt there, tensorr"),
        (KEY, replace(WANTED, target="sm_110"), "another GPU: sm_87 there, sm_110 here"),
        (KEY, replace(WANTED, device="Orin Nano"), "another GPU: Orin there, Orin Nano here"),
        (KEY, replace(WANTED, batch=16), "another batch: 8 there, 16 here"),
        (
            with_options(KEY, profile="1,8,32"),
            replace(WANTED, batch=64),
            "another batch: 1 to 32 there, 64 here",
        ),
        (with_options(KEY, sides="2,640"), replace(WANTED, tile=1024), "up to 640 pixels there, 1"),
        (KEY, replace(WANTED, tile=1024), "another kind of input"),
        (replace(KEY, schema=2), WANTED, "plans of another trtdet: schema 2 there, 1 here"),
    ],
)
def test_a_miss_says_what_is_another(
    plans: Path, key: PlanKey, wanted: WantedPlan, reason: str
) -> None:
    path = write(plans, key)
    with pytest.raises(PlanMissError, match=re.escape(reason)) as caught:
        find_plan(plans, wanted)
    assert path.name in str(caught.value)
    assert f"`trtdet compile {plans.parent} --target current" in str(caught.value)
    assert isinstance(caught.value, BackendError)


@pytest.mark.parametrize(
    ("wanted", "command"),
    [
        (WANTED, "--target current --batch 8`"),
        (replace(WANTED, batch=80, views=10), "--target current --batch 8`"),
        (replace(WANTED, batch=None), "--target current`"),
        (replace(WANTED, batch=1, tile=640), "--target current`"),
        (
            replace(WANTED, flavour="tensorrt-rtx"),
            "--target current --batch 8 --flavour tensorrt-rtx`",
        ),
        (replace(WANTED, lean=True), "--target current --batch 8 --version-compatible`"),
    ],
)
def test_the_command_of_a_miss_makes_what_is_missing(
    plans: Path, wanted: WantedPlan, command: str
) -> None:
    with pytest.raises(PlanMissError, match=re.escape(command)) as caught:
        find_plan(plans, wanted)
    assert f"there is none in {plans}" in str(caught.value)


def test_a_folder_with_a_space_can_be_pasted(tmp_path: Path) -> None:
    with pytest.raises(PlanMissError, match=f"trtdet compile '{tmp_path}/my bundle' --target"):
        find_plan(tmp_path / "my bundle/plans", WANTED)


def test_the_nearest_plan_is_the_one_with_the_fewest_differences(plans: Path) -> None:
    write(plans, replace(KEY, version="8.6", target="sm_72", batch=1))
    near = write(plans, replace(KEY, batch=4), age_s=100)
    write(plans, replace(KEY, flavour="tensorrt-rtx", graph_sha256="b" * 64))
    with pytest.raises(PlanMissError, match=rf"{near.name}.*another batch: 4 there, 8 here"):
        find_plan(plans, WANTED)


def test_a_plan_ahead_of_time_is_for_its_own_generation(plans: Path) -> None:
    """What was compiled for Ampere's first generation is not taken for its second."""
    key = PlanKey("tensorrt-rtx", "1.7.1.116", "sm_80", "a" * 64, 8, (TF32,))
    write(plans, key)
    wanted = replace(WANTED, flavour="tensorrt-rtx", version="1.7.1.116", target="sm_86")
    with pytest.raises(PlanMissError, match="another GPU: sm_80 there, sm_86 here"):
        find_plan(plans, wanted)
    assert find_plan(plans, replace(wanted, target="sm_80")).key == key


def test_the_newest_plan_wins(plans: Path) -> None:
    write(plans, KEY, b"old", age_s=100)
    write(plans, with_options(KEY, level="5"), b"new")
    write(plans, with_options(KEY, level="1"), b"older", age_s=200)
    assert find_plan(plans, WANTED).data == b"new"


def test_a_plan_from_elsewhere_is_passed_over_and_said(plans: Path, monkeypatch) -> None:
    lines: list[str] = []
    home = os.environ["TRTDET_HOME"]
    monkeypatch.setenv("TRTDET_HOME", f"{home} of somebody else")
    newer = with_options(KEY, level="5")
    path = write(plans, newer, b"foreign")
    monkeypatch.setenv("TRTDET_HOME", home)
    with pytest.raises(PlanMissError, match="not compiled here"):
        find_plan(plans, WANTED, on_line=lines.append)
    assert lines == [f"{path} was not compiled here: it is code, so it is not loaded"]
    assert find_plan(plans, WANTED, trust=True).data == b"foreign"
    assert stored_plan(plans, newer) is None
    write(plans, KEY, b"ours", age_s=100)
    assert find_plan(plans, WANTED).data == b"ours"


def test_a_damaged_plan_is_passed_over(plans: Path) -> None:
    lines: list[str] = []
    path = write(plans, KEY)
    path.write_bytes(b"pl")
    with pytest.raises(PlanMissError, match="it is damaged"):
        find_plan(plans, WANTED, on_line=lines.append)
    assert lines == [f"{path} is damaged: it has another hash than its record says"]
    assert stored_plan(plans, KEY) is None


@pytest.mark.parametrize(
    "record",
    [
        "",
        "{",
        "[]",
        "null",
        '{"key": 1}',
        '{"key": {"options": {}}}',
        '{"plan_sha256": ""}',
        "\x00",
    ],
)
def test_a_damaged_record_is_passed_over(plans: Path, record: str) -> None:
    lines: list[str] = []
    damaged = write(plans, with_options(KEY, level="5")).with_suffix(".json")
    damaged.write_text(record)
    write(plans, KEY, b"whole", age_s=100)
    assert find_plan(plans, WANTED, on_line=lines.append).data == b"whole"
    assert len(lines) == 1
    assert lines[0].startswith(f"{damaged} is damaged")


def test_a_plan_without_a_record_or_a_record_without_a_plan_is_none(plans: Path) -> None:
    write(plans, KEY).with_suffix(".json").unlink()
    write(plans, with_options(KEY, level="5")).unlink()
    assert list(stored_plans(plans)) == []
    with pytest.raises(PlanMissError, match="there is none"):
        find_plan(plans, WANTED)


def test_plans_in_the_store_are_found_too(plans: Path) -> None:
    _, stored = plan_folders(plans, KEY.graph_sha256)
    assert stored == store_folder() / "plans" / KEY.graph_sha256
    path = write(stored, KEY)
    assert find_plan(plans, WANTED).path == path
    assert stored_plan(plans, KEY) == path


def test_new_plans_go_where_they_can_be_written(tmp_path: Path, plans: Path) -> None:
    stored = store_folder() / "plans" / KEY.graph_sha256
    plans.parent.mkdir()
    assert writable_folder(plans, KEY.graph_sha256) == plans
    assert list(plans.parent.iterdir()) == []  # it was tried, and nothing is left of it
    plans.write_text("no folder")
    assert writable_folder(plans, KEY.graph_sha256) == stored
    assert writable_folder(tmp_path / "nowhere/plans", KEY.graph_sha256) == stored
    assert writable_folder(starter_bundle() / "plans", KEY.graph_sha256) == stored


@contextmanager
def as_a_user() -> Iterator[None]:
    """Root may write everywhere, so for as long as the block runs this process is nobody."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_a_read_only_bundle_has_its_plans_in_the_store(plans: Path) -> None:
    plans.mkdir(parents=True)
    plans.chmod(0o555)
    with as_a_user():
        folder = writable_folder(plans, KEY.graph_sha256)
    assert folder == store_folder() / "plans" / KEY.graph_sha256


@pytest.mark.parametrize("interruption", [KeyboardInterrupt(), OSError("No space left on device")])
@pytest.mark.parametrize(
    ("module", "step", "calls_a_file"),
    [(os, "fsync", 2), (Path, "replace", 1)],  # the file is synced, then its folder
)
@pytest.mark.parametrize("files_before", [0, 1])
def test_an_interrupted_write_leaves_no_half_file(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    interruption: BaseException,
    module: object,
    step: str,
    calls_a_file: int,
    files_before: int,
) -> None:
    """The first or the second file is interrupted; the plan may then be there, its record not."""
    monkeypatch.setattr(built, "record_built", lambda _digest: None)
    real, calls = getattr(module, step), []

    def interrupt(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) > files_before * calls_a_file:
            raise interruption
        return real(*arguments)

    monkeypatch.setattr(module, step, interrupt)
    expected = KeyboardInterrupt if isinstance(interruption, KeyboardInterrupt) else InputError
    with pytest.raises(expected, match="No space left" if expected is InputError else None):
        write_plan(tmp_path, Plan(KEY, b"plan"))
    assert [path.name for path in tmp_path.iterdir()] == [KEY.file_name][:files_before]


def test_a_record_says_what_the_plan_is(plans: Path) -> None:
    path = write(plans, KEY)
    record = path.with_suffix(".json").read_bytes()
    assert json.loads(record) == {
        "key": {
            "flavour": "tensorrt",
            "version": "10.3.0",
            "target": "sm_87",
            "graph_sha256": "a" * 64,
            "batch": 8,
            "options": {"compiled_on": "Orin", "tf32": "off"},
            "schema": 1,
        },
        "plan_sha256": "64879f7d6b960a01909762d911a32d4582c20010c5641ee90278b644a9e3b525",
        "size_bytes": 4,
    }
    assert write_plan(plans, Plan(KEY, b"plan")) == path
    assert path.with_suffix(".json").read_bytes() == record
    assert len(list(plans.iterdir())) == 2
    ordinary = plans.parent / "ordinary"
    ordinary.touch()
    assert path.stat().st_mode == ordinary.stat().st_mode  # not a temporary file's 0600


def test_what_a_plan_was_found_to_be_is_in_its_record(plans: Path) -> None:
    path = write(plans, KEY)
    assert (find_plan(plans, WANTED).probe_logits, find_plan(plans, WANTED).verdict) == (None, "")
    logits = np.array([[0.1, -3e-7], [np.nan, 1e30]], np.float32)
    record_judged(path, logits, "passed on Orin")
    found = find_plan(plans, WANTED)
    assert found.verdict == "passed on Orin"
    assert found.probe_logits.tobytes() == logits.tobytes()
    assert found.probe_logits.shape == (2, 2)
    write(plans, KEY, b"compiled again")  # nobody judged this one
    assert find_plan(plans, WANTED).probe_logits is None
    path.write_bytes(b"another")
    with pytest.raises(InputError, match="it is another plan's"):
        record_judged(path, logits, "passed")


@pytest.mark.parametrize("change", [{"verdict": 1}, {"probe_logits": [1.0]}, {"verdict": "\x1b"}])
def test_a_record_with_a_damaged_verdict_is_passed_over(plans: Path, change: dict) -> None:
    lines: list[str] = []
    record = write(plans, KEY).with_suffix(".json")
    record.write_text(json.dumps({**json.loads(record.read_bytes()), **change}))
    with pytest.raises(PlanMissError):
        find_plan(plans, WANTED, on_line=lines.append)
    assert "is damaged" in lines[0]


def test_one_plan_alone_can_be_meant(plans: Path, tmp_path: Path) -> None:
    older = write(plans, with_options(KEY, level="1"), b"older", age_s=100)
    write(plans, KEY, b"newer")
    elsewhere = write(tmp_path / "elsewhere", KEY, b"trial")
    assert find_plan(plans, WANTED, only=older).data == b"older"
    assert find_plan(plans, WANTED, only=elsewhere).data == b"trial"
    with pytest.raises(PlanMissError, match="another batch: 8 there, 16 here"):
        find_plan(plans, replace(WANTED, batch=16), only=elsewhere)
    remove_plan(elsewhere)
    remove_plan(elsewhere)
    with pytest.raises(PlanMissError):
        find_plan(plans, WANTED, only=elsewhere)


def test_nothing_is_written_through_the_links_of_a_bundle(plans: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    plans.parent.mkdir()
    plans.symlink_to(mine)
    stored = store_folder() / "plans" / KEY.graph_sha256
    assert writable_folder(plans, KEY.graph_sha256) == stored
    with pytest.raises(InputError, match="is a symbolic link"):
        write(plans, KEY)
    plans.unlink()
    plans.mkdir()
    for number, name in enumerate((KEY.file_name, KEY.file_name.replace(".plan", ".json"))):
        (mine / f"{number}").write_text("mine")
        (plans / name).symlink_to(mine / f"{number}")
    path = write(plans, KEY)
    assert [each.read_text() for each in sorted(mine.iterdir())] == ["mine"] * 2
    assert not path.is_symlink()
    assert find_plan(plans, WANTED).path == path
