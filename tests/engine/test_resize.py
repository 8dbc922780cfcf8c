"""Resizing against the libraries that papers use; TensorFlow's by vectors that it gave."""

from __future__ import annotations

import numpy as np
import pytest

from trtdet.engine.resize import resize_tensorflow

# tf.image.resize(picture(*size).astype(np.float32), out, method, antialias=False).ravel(), as
# TensorFlow 2.21.0 gives it on a CPU with AVX-512; float32 in its shortest decimal form. The code
# was equal, bit for bit, on 200 random sizes of 1 to 1999 pixels, too.
GOLDEN = {
    ("nearest", (3, 4), (2, 5)): """
        0 128 62 58 116 236 162 150 200 162 150 200 56 230 210 216 40 182 130 140 212 90 30
        32 90 30 32 96 222 154
    """,
    ("nearest", (5, 2), (7, 3)): """
        0 128 62 58 116 236 58 116 236 162 150 200 56 230 210 56 230 210 162 150 200 56 230
        210 56 230 210 252 100 10 238 16 112 238 16 112 14 234 4 92 242 198 92 242 198 14
        234 4 92 242 198 92 242 198 216 40 182 130 140 212 130 140 212
    """,
    ("nearest", (1, 6), (3, 2)): """
        58 116 236 252 100 10 58 116 236 252 100 10 58 116 236 252 100 10
    """,
    ("bilinear", (3, 4), (2, 5)): """
        63 121 49 91 100 158.20001 114 131 178 107.00001 189.6 167.79999 65 233 207 225 55
        139 177.4 92.8 172.6 114 95 106 78.2 124.79999 66.99999 95 227 165
    """,
    ("bilinear", (5, 2), (7, 3)): """
        0 128 62 29 122 149 58 116 236 92.57143 140.57143 140.85715 74.71428 160.85715 181
        56.857143 181.14285 221.14285 187.7143 135.71428 145.71426 147.85715 152.2857
        163.85713 108.000015 168.85712 181.99998 252 100 10 245 58 61 238 16 112 81.99997
        195.7143 5.714285 107.85712 186.57146 89.571434 133.71426 177.4286 173.42859
        100.571434 150.85715 80.28572 104.42857 174.57143 142.14285 108.28571 198.2857 204
        216 40 182 173 90 197 130 140 212
    """,
    ("bilinear", (1, 6), (3, 2)): """
        58 116 236 252 100 10 58 116 236 252 100 10 58 116 236 252 100 10
    """,
    ("bicubic", (3, 4), (2, 5)): """
        46.633224 125.280495 41.38269 78.96288 97.21092 168.29973 120.600365 126.607666
        193.44708 115.44554 193.30331 171.8021 59.747276 235.40225 210.69124 231.53778
        48.035206 146.404 181.01456 99.58478 190.46815 107.28651 86.66606 100.24999 73.13008
        111.046234 49.603455 97.05096 232.76433 168.11172
    """,
    ("bicubic", (5, 2), (7, 3)): """
        -13.872091 127.86369 41.880665 24.347132 118.045074 145.74301 62.56635 108.22644
        249.60532 87.26347 140.31143 146.80675 64.71065 168.81197 189.89703 42.157803
        197.31247 232.98727 209.06589 132.6496 163.00783 153.41634 157.69444 173.00137
        97.766754 182.73926 182.9949 252.92242 105.53465 3.279338 245 58 61 237.07753
        10.465336 118.72065 54.970753 215.89514 -25.352932 94.77545 201.29224 80.09486
        134.58014 186.68929 185.54263 86.40403 153.82603 73.607086 93.11199 184.75308
        145.95816 99.81994 215.68008 218.3092 234.04343 21.775345 191.00446 179.97932
        81.3922 202.58347 125.91521 141.00903 214.16246
    """,
    ("bicubic", (1, 6), (3, 2)): """
        58 116 236 252 100 10 58 116 236 252 100 10 58 116 236 252 100 10
    """,
}


def picture(height: int, width: int) -> np.ndarray:
    """Bytes without a pattern: uint8 [height, width, 3]."""
    n = np.arange(height * width * 3)
    return ((97 * n + 31 * n**2) % 256).astype(np.uint8).reshape(height, width, 3)


@pytest.mark.parametrize(("method", "size", "out"), GOLDEN)
def test_tensorflows_resize_gives_the_same_bits(method, size, out):
    resized = resize_tensorflow(picture(*size), *out, method)
    expected = np.array(GOLDEN[method, size, out].split(), np.float32).reshape(*out, 3)
    assert resized.dtype == np.float32
    assert np.array_equal(resized, expected)


def test_tensorflows_bicubic_is_neither_rounded_nor_clipped():
    edge = np.repeat(np.array([0, 0, 255, 255], np.uint8), 12).reshape(4, 4, 3)
    resized = resize_tensorflow(edge, 9, 4, "bicubic")
    assert resized.min() < 0
    assert resized.max() > 255
    assert np.array_equal(resize_tensorflow(edge, 4, 4, "bicubic"), edge.astype(np.float32))
