from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from trtdet.build.augment import augment


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height + width).integers(0, 256, (height, width, 3), np.uint8)


@given(st.integers(1, 90), st.integers(1, 90), st.integers(16, 64), st.integers(0, 10**6))
@settings(max_examples=150, deadline=None)
def test_any_image_gives_a_full_piece(height, width, side, seed):
    piece = augment(picture(height, width), np.random.default_rng(seed), side)
    assert piece.shape == (side, side, 3)
    assert piece.dtype == np.uint8


def test_the_same_seed_gives_the_same_piece_and_the_source_is_untouched():
    source = picture(200, 220)
    before = source.copy()
    pieces = [augment(source, np.random.default_rng(seed), 96) for seed in (*range(40), *range(40))]
    assert all(np.array_equal(pieces[n], pieces[n + 40]) for n in range(40))
    assert len({piece.tobytes() for piece in pieces}) == 40
    assert np.array_equal(source, before)


def test_some_pieces_are_the_image_itself():
    source = picture(100, 100)
    known = {
        np.rot90(turned, times).tobytes()
        for turned in (source, source[:, ::-1])
        for times in range(4)
    }
    found = [augment(source, np.random.default_rng(s), 100).tobytes() in known for s in range(200)]
    assert 0.2 < np.mean(found) < 0.6


def test_colours_keep_their_channels():
    """A codec that takes RGB for BGR would give red's artefacts to blue."""
    source = np.zeros((64, 64, 3), np.uint8)
    source[..., 0] = 200
    for seed in range(40):
        red, _green, blue = augment(source, np.random.default_rng(seed), 32).mean((0, 1))
        assert red > blue
