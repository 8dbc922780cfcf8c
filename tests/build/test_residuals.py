"""The fixed front ends against the plain definitions in the papers' code, bit for bit."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="building needs torch (trtdet[build])")

import torch.nn.functional as F  # noqa: E402

from trtdet.build.residuals import cell_difference, masked_median_difference  # noqa: E402


def images() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    normal = torch.randn(2, 3, 34, 46, generator=generator)
    levels = torch.randint(0, 256, (2, 3, 32, 40), generator=generator)
    flat = torch.full((1, 3, 8, 8), 0.25)
    return {
        "random": normal,
        "8-bit": (levels / 255.0 - 0.48145466) / 0.26862954,
        "few values, many ties": torch.randint(-2, 3, (2, 3, 32, 32), generator=generator).float(),
        "constant": flat,
        "all below the padding": -normal.abs(),
        "two by two": normal[:, :, :2, :2],
    }


@pytest.mark.parametrize("name", images())
def test_masked_median_is_that_of_a_sort(name):
    x = images()[name]
    n, c, h, w = x.shape
    windows = F.unfold(x.reshape(n * c, 1, h, w), 3, padding=1).reshape(n, c, 9, h, w)
    windows[:, :, 4] = 0.0  # the centre
    expected = x - windows.sort(dim=2).values[:, :, 4]
    assert torch.equal(masked_median_difference(x), expected)


def test_masked_median_of_one_pixel_is_the_padding():
    x = torch.tensor([[[[3.0]]]])
    assert torch.equal(masked_median_difference(x), x)


@pytest.mark.parametrize("name", images())
def test_cell_difference_is_that_of_two_interpolations(name):
    x = images()[name]
    half = F.interpolate(x, scale_factor=0.5, mode="nearest", recompute_scale_factor=True)
    back = F.interpolate(half, scale_factor=2.0, mode="nearest", recompute_scale_factor=True)
    assert torch.equal(cell_difference(x), x - back)
