"""One process at a time: a lock file that is there only while somebody holds it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(lock: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold the lock file `lock` for the block; `on_wait` is called once, if others hold it.

    A holder that dies lets go of it. Where the system or the file system cannot lock (Windows,
    some network folders), the block runs without. Raises OSError where `lock` cannot be made.
    """
    descriptor = _acquire(lock, on_wait)
    try:
        yield
    finally:
        if descriptor is not None:
            lock.unlink(missing_ok=True)
            os.close(descriptor)


def _acquire(lock: Path, on_wait: Callable[[], None]) -> int | None:
    try:
        import fcntl
    except ImportError:
        return None
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                on_wait()
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:  # the file system has no locks
            lock.unlink(missing_ok=True)
            os.close(descriptor)
            return None
        except BaseException:  # interrupted while it waited
            os.close(descriptor)
            raise
        if _is_at(descriptor, lock):
            return descriptor
        os.close(descriptor)  # its last holder removed it: whoever comes next locks a new one


def _is_at(descriptor: int, lock: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), lock.stat())
    except FileNotFoundError:
        return False
