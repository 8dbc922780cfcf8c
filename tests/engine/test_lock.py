"""The lock between processes."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from trtdet.engine.lock import locked

ADD_ONE = """
import sys
from pathlib import Path
from trtdet.engine.lock import locked
folder = Path(sys.argv[1])
for _ in range(200):
    with locked(folder / "lock", lambda: None):
        count = int((folder / "count").read_text())
        (folder / "count").write_text(str(count + 1))
"""


def test_one_process_at_a_time(tmp_path: Path):
    (tmp_path / "count").write_text("0")
    command = [sys.executable, "-c", ADD_ONE, str(tmp_path)]
    processes = [subprocess.Popen(command) for _ in range(4)]
    assert [process.wait(timeout=60) for process in processes] == [0] * 4
    assert (tmp_path / "count").read_text() == "800"
    assert [path.name for path in tmp_path.iterdir()] == ["count"]


def test_a_failure_lets_go(tmp_path: Path):
    waited: list[str] = []
    for _ in range(2):
        with (
            pytest.raises(ZeroDivisionError),
            locked(tmp_path / "lock", lambda: waited.append("waited")),
        ):
            raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    assert waited == []


def test_who_waits_is_told_once_and_the_killed_let_go(tmp_path: Path):
    hold = (
        "import sys, time; from pathlib import Path\n"
        "from trtdet.engine.lock import locked\n"
        "with locked(Path(sys.argv[1]), lambda: None):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(60)\n"
    )
    lock = tmp_path / "lock"
    command = [sys.executable, "-c", hold, str(lock)]
    waited: list[str] = []

    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"

        def kill() -> None:
            waited.append("waited")
            process.kill()

        with locked(lock, on_wait=kill):
            assert lock.exists()
    assert process.returncode == -signal.SIGKILL
    assert waited == ["waited"]
    assert not lock.exists()
