"""Released files for the commands that need them: from the store, else fetched, with a bar."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trtdet.commands.download_bar import download_bar

if TYPE_CHECKING:
    from trtdet.build.release import Release


def fetched(release: Release) -> Path:
    """The file of `release`, from the store or the network; a bar shows the way."""
    from trtdet.build.weights_store import fetch_release

    with download_bar() as (on_progress, on_line):
        return fetch_release(release, on_progress, on_line)
