"""`trtdet.Scorer` gives the bits of `trtdet score`, however its images come."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import trtdet
from tests.conftest import read_rows, run_trtdet, write_rows
from tests.engine.ensembles import make_ensemble
from trtdet.engine.decode import Limits
from trtdet.engine.decoded import Decoder
from trtdet.engine.sink import format_logit
from trtdet.errors import BundleError, InputError


@pytest.fixture(scope="module")
def job(small_bundle, pictures, tmp_path_factory):
    """Names with bad ones among them, and what `trtdet score` makes of them."""
    folder = tmp_path_factory.mktemp("job")
    (folder / "text.jpg").write_text("not an image")
    cut = folder / "cut.png"
    cut.write_bytes(pictures[1].read_bytes()[:-200])
    names = [*map(str, pictures), "text.jpg", "missing.jpg", "cut.png", "", *map(str, pictures)]
    return folder, names, by_command(small_bundle, folder, names)


def by_command(bundle: Path, folder: Path, names: list[str]) -> list[tuple[str, str | None]]:
    """Each row's logit, as text, and reason."""
    table = write_rows(folder / "in.csv", names)
    run_trtdet("score", "--engine", bundle, table, folder / "out.csv", check=False)
    errors = folder / "out.csv.errors.csv"
    reasons = iter(read_rows(errors)[1:] if errors.exists() else [])
    rows = read_rows(folder / "out.csv")[1:]
    assert [name for name, _ in rows] == names
    return [(logit, None if logit else next(reasons)[1]) for _, logit in rows]


def answers(batch) -> list[tuple[str, str | None]]:
    """A scorer's answer, written as the command writes it."""
    assert batch["logit"].dtype == np.float32
    return [
        (format_logit(logit) if reason is None else "", reason)
        for logit, reason in zip(batch["logit"], batch["reason"], strict=True)
    ]


@pytest.fixture(scope="module")
def scorer(small_bundle, job):
    with trtdet.Scorer(small_bundle, folder=job[0]) as scorer:
        yield scorer


def test_names_have_the_scores_and_the_reasons_of_the_command(scorer, job):
    _, names, expected = job
    rows = np.arange(len(names))
    batch = scorer({"filename": np.array(names), "row": rows})
    assert answers(batch) == expected
    assert [reason for _, reason in expected if reason] == [
        "not an image that Pillow can read",
        "file not found",
        expected[14][1],
        "the row has no file name",
    ]
    assert batch["row"] is rows
    assert list(batch["filename"]) == names
    assert np.isnan(batch["logit"][12:16]).all()


def test_so_have_bytes_and_names_that_are_bytes(scorer, job, pictures):
    data = [path.read_bytes() for path in pictures]
    scored = answers(scorer({"bytes": [*data, b"junk"]}))
    assert scored == [*job[2][:12], ("", "not an image that Pillow can read")]
    names = np.array([str(path).encode() for path in pictures], object)
    assert answers(scorer({"filename": names})) == job[2][:12]


def test_so_have_images_that_were_decoded_elsewhere(scorer, job):
    folder, names, expected = job
    decoded = Decoder(scorer.geometries, str(folder))({"filename": names, "row": range(len(names))})
    assert decoded["pixels"].shape == (len(names), 1, 256, 256, 3)
    batch = scorer(decoded)
    assert answers(batch) == expected
    assert set(batch) == {"filename", "row", "logit", "reason"}


def test_an_ensemble_takes_a_column_for_each_way_to_see_an_image(
    small_bundle, job, pictures, tmp_path
):
    ensemble = make_ensemble(tmp_path / "together", small_bundle)
    names = [*map(str, pictures), "missing.jpg"]
    with trtdet.Scorer(ensemble) as scorer:
        decoded = Decoder(scorer.geometries)({"filename": names})
        assert {"pixels", "pixels_2", "pixels_3"} < set(decoded)
        scored = answers(scorer(decoded))
        assert scored == answers(scorer({"filename": names}))
    assert scored == by_command(ensemble, tmp_path, names)


def test_native_resolution_takes_pixels_of_any_size(built, small_pictures, tmp_path):
    native = built("npr", "npr", geometry="native")
    names = [*map(str, small_pictures), "missing.jpg"]
    with trtdet.Scorer(native) as scorer:
        decoded = Decoder(scorer.geometries)({"filename": names})
        assert [each.shape for each in decoded["pixels"][:2]] == [(1, 60, 82, 3), (1, 90, 66, 3)]
        scored = answers(scorer(decoded))
    assert scored == by_command(native, tmp_path, names)


def test_failed_rows_have_the_number_that_was_asked_for(small_bundle):
    with trtdet.Scorer(small_bundle, failed_logit=-1.5) as scorer:
        batch = scorer({"filename": ["missing.jpg", None, float("nan")]})
    assert batch["logit"].tolist() == [-1.5] * 3
    assert batch["reason"].tolist() == ["file not found", *["the row has no file name"] * 2]


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"max_pixels": 100}, r"over the limit of 0.0001 Mpixel; raise it with --max-pixels"),
        ({"max_bytes": 100}, r"over the limit of 100; raise it with --max-bytes"),
        ({"max_seconds": 0.02}, r"took more than 0.02 s to read and decode"),
    ],
)
def test_an_image_has_its_limits_wherever_it_is_decoded(small_bundle, tmp_path, limits, reason):
    slow = [tmp_path / "large.png"]
    Image.new("RGB", (6000, 6000)).save(slow[0], compress_level=1)
    with trtdet.Scorer(small_bundle, **limits) as scorer:
        decoded = Decoder(scorer.geometries, limits=Limits(**limits))({"filename": slow})
        for batch in ({"filename": slow}, {"bytes": [slow[0].read_bytes()]}, decoded):
            (_, said), *_ = answers(scorer(batch))
            assert re.search(reason, said)


def test_a_pickled_copy_opens_the_engine_again(small_bundle, job):
    folder, names, expected = job
    with trtdet.Scorer(small_bundle, folder=folder, batch=3, threads=1, streams=1) as scorer:
        written = pickle.dumps(scorer)
    assert len(written) < 2000  # its arguments, and no engine
    with pickle.loads(written) as copy:
        assert copy.engine.batch == 3
        assert answers(copy({"filename": names})) == expected


def test_calls_from_several_threads_do_not_mix(scorer, job):
    _, names, expected = job
    with ThreadPoolExecutor(4) as pool:
        calls = [
            pool.submit(scorer, {"filename": names[first : first + 5]}) for first in range(0, 25, 5)
        ]
        scored = [each for call in calls for each in answers(call.result())]
    assert scored == expected[:25]


def test_a_batch_without_rows_has_the_columns(scorer):
    batch = scorer({"filename": np.array([], object)})
    assert {name: len(column) for name, column in batch.items()} == {
        "filename": 0, "logit": 0, "reason": 0,
    }  # fmt: skip


def test_a_batch_without_images_says_which_columns_it_has(scorer):
    with pytest.raises(InputError, match=r"no column 'filename', 'bytes' or 'pixels' .*'path'"):
        scorer({"path": ["a.jpg"]})


def test_an_engine_that_is_not_there_is_an_error_at_once():
    with pytest.raises(BundleError, match="no engine 'nothing'"):
        trtdet.Scorer("nothing")


def test_spark_takes_it_through_three_lines(small_bundle, job):
    pd = pytest.importorskip("pandas", reason="what Spark hands over is pandas' (trtdet[ray])")
    folder, names, expected = job

    def score(frames):  # as in docs/long-jobs.md
        scorer = trtdet.Scorer(small_bundle, folder=folder)
        yield from (pd.DataFrame(scorer(frame)) for frame in frames)

    frames = pd.DataFrame({"filename": names, "id": range(len(names))}, index=range(50, 78))
    done = list(score(iter([frames[:10], frames[10:]])))
    assert [len(frame) for frame in done] == [10, 18]
    together = pd.concat(done)
    assert together.columns.tolist() == ["filename", "id", "logit", "reason"]
    assert together["id"].tolist() == list(range(len(names)))
    scored = [
        ("" if pd.isna(logit) else format_logit(logit), None if pd.isna(reason) else reason)
        for logit, reason in zip(together["logit"], together["reason"], strict=True)
    ]
    assert scored == expected


def test_importing_trtdet_stays_light():
    program = "import sys, trtdet; assert 'numpy' not in sys.modules; print(trtdet.Scorer)"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    assert done.stdout == b"<class 'trtdet.engine.scorer.Scorer'>\n"
    assert not hasattr(trtdet, "Skorer")
