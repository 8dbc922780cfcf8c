"""Two nodes score as one process does, to the same bytes, whoever is killed on the way."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import trtdet
from tests.conftest import read_rows, run_trtdet, write_rows
from trtdet.engine.ray_cluster import import_ray
from trtdet.engine.ray_job import RayJob, open_ray_job
from trtdet.engine.ray_output import count_done, open_output
from trtdet.engine.sink import format_logit
from trtdet.errors import DriftError, InputError

pytest.importorskip("ray", reason="scoring on many machines needs Ray (trtdet[ray])")
pq = pytest.importorskip("pyarrow.parquet", reason="Ray Data needs pyarrow (trtdet[ray])")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two nodes of two CPUs each; with one, Ray Data would have none left to read and write on."""
    ray = import_ray()
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 2, "object_store_memory": 200 << 20, "include_dashboard": False}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRTDET_HOME", str(tmp_path_factory.mktemp("home of the nodes")))
        cluster = Cluster(initialize_head=True, head_node_args=node)
        try:
            cluster.add_node(num_cpus=2, object_store_memory=200 << 20)
            ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
            yield cluster
        finally:
            ray.shutdown()
            cluster.shutdown()


@pytest.fixture(scope="module")
def table(small_bundle, pictures, tmp_path_factory):
    """A Parquet table with bad rows, and per row what `trtdet score` makes of its CSV."""
    folder = tmp_path_factory.mktemp("table")
    corrupt = folder / "corrupt.png"
    corrupt.write_bytes(pictures[1].read_bytes()[:-200])
    names = [*map(str, pictures), "corrupt.png", "with,comma.png", ""] * 40
    rows = write_rows(folder / "in.csv", names)
    pq.write_table(_arrow({"filename": names, "label": [0] * len(names)}), folder / "in.parquet")
    done = run_trtdet("score", "--engine", small_bundle, rows, folder / "out.csv", check=False)
    assert done.returncode == 3
    reasons = iter(read_rows(folder / "out.csv.errors.csv")[1:])
    expected = [
        (name, logit, None if logit else next(reasons)[1])
        for name, logit in read_rows(folder / "out.csv")[1:]
    ]
    assert sum(reason is not None for _, _, reason in expected) == 120
    return folder, expected


def _arrow(columns):
    import pyarrow as pa

    return pa.table(columns)


def rows_of(out: Path) -> list[tuple[str, str, str | None]]:
    """A folder's rows in the order of the input; every number from 0 is there once."""
    from pyarrow.dataset import dataset

    found = dataset(out).to_table().sort_by("index").to_pydict()
    assert found["index"] == list(range(len(found["index"])))
    logits = ["" if logit is None else format_logit(np.float32(logit)) for logit in found["logit"]]
    return list(zip(found["filename"], logits, found["reason"], strict=True))


def engine_processes(cluster) -> list[int]:
    """The processes of the actors that score, on either node."""
    found = []
    for node in cluster.list_all_nodes():
        raylet = node.all_processes["raylet"][0].process.pid
        children = Path(f"/proc/{raylet}/task/{raylet}/children").read_text().split()
        for child in children:
            try:
                command = Path(f"/proc/{child}/cmdline").read_bytes()
            except FileNotFoundError:
                continue
            if b"ScoreRows" in command:
                found.append(int(child))
    return found


def test_two_nodes_give_the_bytes_of_one_process(cluster, small_bundle, table, tmp_path):
    folder, expected = table
    job = RayJob(str(folder / "in.parquet"), str(tmp_path / "out"), small_bundle, rows_per_file=100)
    opened = open_ray_job(import_ray(), job)
    assert (opened.engines.count, opened.engines.nodes, opened.engines.streams) == (2, 2, 2)
    heard = []
    summary = opened.run(import_ray(), lambda rows, failures: heard.append((rows, failures)))
    assert (summary.rows, summary.failures) == (600, 120)
    assert sum(rows for rows, _ in heard) == 600
    assert heard[-1][1] == 120
    assert rows_of(tmp_path / "out") == expected
    assert [path.name for path in tmp_path.iterdir()] == ["out"]  # no journal is left
    assert len(list((tmp_path / "out").iterdir())) > 1
    schema = pq.read_schema(next((tmp_path / "out").iterdir()))
    assert [(field.name, str(field.type)) for field in schema] == [
        ("index", "int64"), ("filename", "string"), ("logit", "float"), ("reason", "string"),
    ]  # fmt: skip


def test_the_command_puts_one_file_in_order_to_the_same_bytes(
    cluster, small_bundle, pictures, tmp_path
):
    names = [*map(str, pictures), "a\nbreak.png", 'a "quoted".png', "\udcffnot utf-8.jpg", ""]
    table = write_rows(tmp_path / "in.csv", names)
    shutil.copy(pictures[0], tmp_path / "\udcffnot utf-8.jpg")
    command = ("score", "--engine", small_bundle, "--failed-logit", "-2", table)
    run_trtdet(*command, tmp_path / "one.csv", check=False)
    together = ("--ray", cluster.address, "--json")
    done = run_trtdet(*command, tmp_path / "two.csv", *together, check=False)
    assert done.returncode == 3, done.stderr
    said = json.loads(done.stdout)
    assert [said[key] for key in ("rows", "scored", "failed", "resumed")] == [16, 13, 3, 0]
    assert re.search(
        r"^16 rows in [\d.]+ s \([\d.]+ images/s\), 3 failed; engine small \(fp32\) on "
        r"openvino [\d.]+ CPU, 2 engines on 2 nodes$",
        done.stderr,
        re.MULTILINE,
    )
    assert f"the reasons are in {tmp_path / 'two.csv.errors.csv'}" in done.stderr
    for name in ("{}.csv", "{}.csv.errors.csv"):
        one, two = (tmp_path / name.format(which) for which in ("one", "two"))
        assert two.read_bytes() == one.read_bytes()
    assert not (tmp_path / "two.csv.journal").exists()


@pytest.mark.full
def test_a_folder_of_images_and_one_parquet_file(cluster, small_bundle, pictures, tmp_path):
    (tmp_path / "photos").mkdir()
    for path in pictures:
        shutil.copy(path, tmp_path / "photos")
    command = ("score", "--engine", small_bundle, tmp_path / "photos")
    run_trtdet(*command, tmp_path / "one.parquet")
    run_trtdet(*command, tmp_path / "two.parquet", "--ray", cluster.address)
    one, two = ((tmp_path / f"{which}.parquet").read_bytes() for which in ("one", "two"))
    assert two == one


def test_ray_data_takes_the_scorer_as_it_is(cluster, small_bundle, table):
    folder, expected = table
    ray = import_ray()
    rows = ray.data.from_items([{"id": i, "filename": row[0]} for i, row in enumerate(expected)])
    scored = rows.map_batches(
        trtdet.Scorer,
        fn_constructor_args=(str(small_bundle),),
        fn_constructor_kwargs={"folder": str(folder), "streams": 1},
        batch_size=32,
        num_cpus=1,
        compute=ray.data.ActorPoolStrategy(size=2),
    )
    found = sorted(scored.take_all(), key=lambda row: row["id"])
    assert [
        (row["filename"], "" if row["reason"] else format_logit(row["logit"]), row["reason"])
        for row in found
    ] == expected


@pytest.mark.full
def test_a_killed_worker_costs_no_row(cluster, small_bundle, table, tmp_path):
    folder, expected = table
    job = RayJob(str(folder / "in.parquet"), str(tmp_path / "out"), small_bundle, rows_per_file=20)
    opened = open_ray_job(import_ray(), job)

    def kill_one() -> int:
        while not count_done(opened.output)[0]:
            time.sleep(0.02)
        os.kill(engine_processes(cluster)[0], signal.SIGKILL)
        return count_done(opened.output)[0]

    with ThreadPoolExecutor(1) as pool:
        killed = pool.submit(kill_one)
        summary = opened.run(import_ray())
    assert 0 < killed.result() < 600
    assert (summary.rows, summary.failures) == (600, 120)
    assert rows_of(tmp_path / "out") == expected


DRIVER = """
import sys
from pathlib import Path
from trtdet.engine.ray_cluster import connected
from trtdet.engine.ray_job import RayJob, open_ray_job

address, source, out, bundle = sys.argv[1:]
with connected(address) as ray:
    open_ray_job(ray, RayJob(source, out, Path(bundle), rows_per_file=20)).run(ray)
"""


@pytest.mark.full
def test_a_killed_driver_is_gone_on_with(cluster, small_bundle, table, tmp_path):
    folder, expected = table
    source, out = str(folder / "in.parquet"), tmp_path / "out"
    output = open_output(str(out), source)
    command = [sys.executable, "-c", DRIVER, cluster.address, source, str(out), str(small_bundle)]
    with subprocess.Popen(command) as driver:
        while driver.poll() is None and not count_done(output)[0]:
            time.sleep(0.02)
        driver.kill()
    assert driver.returncode == -signal.SIGKILL
    job = RayJob(source, str(out), small_bundle, rows_per_file=20)
    with pytest.raises(InputError, match=r"out\.journal is of a run that was interrupted"):
        open_ray_job(import_ray(), job)
    other = RayJob(source, str(out), small_bundle, raw=True)
    with pytest.raises(InputError, match=r"of another job; what differs: raw \(False then, True"):
        open_ray_job(import_ray(), other, resume=True)
    opened = open_ray_job(import_ray(), job, resume=True)
    assert 0 < opened.rows_before < 600
    summary = opened.run(import_ray())
    assert summary.rows == 600 - opened.rows_before
    assert summary.failures + opened.failures_before == 120
    assert rows_of(out) == expected


def test_an_engine_that_drifts_is_refused_by_the_node(cluster, small_bundle, table, tmp_path):
    bundle = shutil.copytree(small_bundle, tmp_path / "drifting")
    record = json.loads((bundle / "bundle.json").read_text())
    (bundle / "bundle.json").write_text(json.dumps({**record, "tolerance": 0.0}))
    job = RayJob(str(table[0] / "in.parquet"), str(tmp_path / "out"), bundle)
    with pytest.raises(DriftError, match="drifts by"):
        open_ray_job(import_ray(), job)
    assert not (tmp_path / "out").exists()


def test_a_table_without_rows_gives_the_columns(cluster, small_bundle, tmp_path):
    table = write_rows(tmp_path / "in.csv", [])
    opened = open_ray_job(import_ray(), RayJob(str(table), str(tmp_path / "out"), small_bundle))
    assert opened.run(import_ray()).rows == 0
    assert rows_of(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-", "out"), "--ray needs files"),
        (("in.csv", "-"), "--ray needs files"),
        (("in.csv", "out", "--threads", "2"), "--threads and --ray do not go together"),
        (("in.csv", "out", "--device", "1", "--root", "."), "--root, --device and --ray"),
        (("in.csv", "in.csv"), "would overwrite the input"),
        (("in.csv", "other.txt"), "other.txt is a file"),
        (("in.csv", "full"), "full is not empty"),
        (("in.csv", "out", "--resume"), "leave --resume out"),
        (("other.csv", "out"), "other.csv has no column 'filename'"),
    ],
)
def test_what_does_not_go_together_is_said_at_once(cluster, tmp_path, arguments, message):
    write_rows(tmp_path / "in.csv", ["a.png"])
    write_rows(tmp_path / "other.csv", ["a.png"], header="path")
    (tmp_path / "other.txt").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/something").touch()
    done = run_trtdet(
        "score", *arguments, "--ray", cluster.address, check=False, cwd=tmp_path, input=""
    )
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert not (tmp_path / "out").exists()


def test_no_cluster_says_how_to_start_one(tmp_path):
    table = write_rows(tmp_path / "in.csv", ["a.png"])
    done = run_trtdet("score", table, tmp_path / "out", "--ray", "127.0.0.1:1", check=False)
    assert done.returncode == 2
    assert "there is no Ray cluster at '127.0.0.1:1'" in done.stderr
    assert "ray start --head" in done.stderr
