"""A sink for tests."""

from __future__ import annotations

import numpy as np


class ListSink:
    """Keeps rows as they are written."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, list[np.float32] | None, str | None]] = []
        self.failures = 0

    def write(self, filename, logits, reason):
        self.failures += logits is None
        self.rows.append((filename, None if logits is None else list(logits), reason))
