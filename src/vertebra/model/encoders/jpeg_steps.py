"""JPEG there and back as TensorFlow does it, to the bit: its decoder takes the fast inverse transform, and Pillow's cannot.

    RGB ─► Y, Cb, Cr ─► colors at half the size ─► 8 × 8 blocks ─► transform, quantise │ what a file would hold
    RGB ◄─ Y, Cb, Cr ◄─ colors at full size, smooth ◄──────────── fast inverse ◄───────┘

Entropy coding loses nothing, so that no file is written. All arithmetic is libjpeg's, in whole numbers, on all blocks at
once. `accurate` takes the other inverse: what Pillow and everybody else decode. Legend: n blocks, [.., 8, 8].
"""

from __future__ import annotations

import numpy as np

_LUMA = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87,
    80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101, 72, 92,
    95, 98, 112, 100, 103, 99,
)  # fmt: skip
_CHROMA = (
    17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99, 99,
    99, 99, *[99] * 32,
)  # fmt: skip
# The factors of the fast inverse's rows and columns, in 14 bits.
_AAN = np.array([16384, 22725, 21407, 19266, 16384, 12873, 8867, 4520], np.int64)
_AAN_SCALES = (_AAN[:, None] * _AAN[None] + (1 << 13)) >> 14


def through_jpeg(pixels: np.ndarray, quality: int = 95, *, accurate: bool = False) -> np.ndarray:
    """8-bit pixels [H, W, 3] as they come back from a JPEG with colors at half the resolution."""
    high, wide = pixels.shape[:2]
    luma, blue, red = _to_ycc(pixels.astype(np.int32))  # libjpeg's sums are made to fit 32 bits
    small = (-(-high // 2), -(-wide // 2))
    planes = [(luma, _LUMA, (high, wide)), *((_halved(one), _CHROMA, small) for one in (blue, red))]
    made = []
    for given, table, (rows, columns) in planes:
        plane = _whole_blocks(given)
        steps = steps_of(table, quality)
        blocks = _quantised(_transformed(_blocks(plane)), steps)
        back = _accurate(blocks * steps) if accurate else _fast(blocks, steps)
        made.append(_joined(back, plane.shape)[:rows, :columns])
    luma, blue, red = made[0], *(_doubled(one)[:high, :wide] for one in made[1:])
    return _to_rgb(luma, blue, red)


def steps_of(table: tuple[int, ...], quality: int) -> np.ndarray:
    """[8, 8]: the steps of a quality of 50 or more."""
    scaled = (np.array(table, np.int32).reshape(8, 8) * (200 - 2 * quality) + 50) // 100
    return np.clip(scaled, 1, 255)


def _to_ycc(rgb: np.ndarray) -> list[np.ndarray]:
    """Y, Cb and Cr, their rows even in number, the last column repeated until colors at half the size fill blocks."""
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    half, middle = 1 << 15, (128 << 16) + (1 << 15) - 1
    planes = (
        (19595 * red + 38470 * green + 7471 * blue + half) >> 16,
        (-11059 * red - 21709 * green + 32768 * blue + middle) >> 16,
        (32768 * red - 27439 * green - 5329 * blue + middle) >> 16,
    )
    spare = ((0, -rgb.shape[0] % 2), (0, -rgb.shape[1] % 16))
    return [np.pad(plane, spare, mode="edge") for plane in planes]


def _whole_blocks(plane: np.ndarray) -> np.ndarray:
    """The last row repeated: of colors after they were halved, and not before."""
    return np.pad(plane, ((0, -len(plane) % 8), (0, 0)), mode="edge")


def _halved(plane: np.ndarray) -> np.ndarray:
    """Means of 2 × 2, rounded down and up in turn."""
    total = plane[::2, ::2] + plane[::2, 1::2] + plane[1::2, ::2] + plane[1::2, 1::2]
    return (total + 1 + np.arange(total.shape[1], dtype=total.dtype) % 2) >> 2


def _blocks(plane: np.ndarray) -> np.ndarray:
    rows, columns = plane.shape
    return plane.reshape(rows // 8, 8, columns // 8, 8).transpose(0, 2, 1, 3).reshape(-1, 8, 8) - 128


def _joined(blocks: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    rows, columns = shape
    return blocks.reshape(rows // 8, columns // 8, 8, 8).transpose(0, 2, 1, 3).reshape(rows, columns)


def _rounded(value: np.ndarray, bits: int) -> np.ndarray:
    return (value + (1 << (bits - 1))) >> bits


def _rotations(tmp4: np.ndarray, tmp5: np.ndarray, tmp6: np.ndarray, tmp7: np.ndarray) -> tuple[np.ndarray, ...]:
    """The odd half that both accurate transforms share, in 13 bits."""
    z1, z2, z3, z4 = tmp4 + tmp7, tmp5 + tmp6, tmp4 + tmp6, tmp5 + tmp7
    z5 = (z3 + z4) * 9633
    z1, z2, z3, z4 = z1 * -7373, z2 * -20995, z3 * -16069 + z5, z4 * -3196 + z5
    return tmp4 * 2446 + z1 + z3, tmp5 * 16819 + z2 + z4, tmp6 * 25172 + z2 + z3, tmp7 * 12299 + z1 + z4


def _transformed(blocks: np.ndarray) -> np.ndarray:
    """The forward transform, eight times as large as it is."""
    rows = _forward(blocks, up=2, down=11)
    return _forward(rows.transpose(0, 2, 1), up=-2, down=15).transpose(0, 2, 1)


def _forward(d: np.ndarray, *, up: int, down: int) -> np.ndarray:
    low, high = [d[..., i] + d[..., 7 - i] for i in range(4)], [d[..., i] - d[..., 7 - i] for i in range(4)]
    tmp10, tmp13, tmp11, tmp12 = low[0] + low[3], low[0] - low[3], low[1] + low[2], low[1] - low[2]
    even = (tmp10 + tmp11, tmp10 - tmp11)
    first, fourth = ((value << up) if up > 0 else _rounded(value, -up) for value in even)
    z1 = (tmp12 + tmp13) * 4433
    second, sixth = _rounded(z1 + tmp13 * 6270, down), _rounded(z1 - tmp12 * 15137, down)
    seven, five, three, one = (_rounded(value, down) for value in _rotations(high[3], high[2], high[1], high[0]))
    return np.stack([first, one, second, three, fourth, five, sixth, seven], -1)


def _quantised(coefficients: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """To the nearest step, halves away from zero."""
    divisor = steps << 3
    return np.sign(coefficients) * ((np.abs(coefficients) + (divisor >> 1)) // divisor)


def _accurate(coefficients: np.ndarray) -> np.ndarray:
    """The inverse transform that decoders take."""
    columns = _backward(coefficients.transpose(0, 2, 1), 11).transpose(0, 2, 1)
    return np.clip(_backward(columns, 18) + 128, 0, 255)


def _backward(d: np.ndarray, down: int) -> np.ndarray:
    z1 = (d[..., 2] + d[..., 6]) * 4433
    tmp2, tmp3 = z1 - d[..., 6] * 15137, z1 + d[..., 2] * 6270
    tmp0, tmp1 = (d[..., 0] + d[..., 4]) << 13, (d[..., 0] - d[..., 4]) << 13
    even = (tmp0 + tmp3, tmp1 + tmp2, tmp1 - tmp2, tmp0 - tmp3)
    odd = _rotations(d[..., 7], d[..., 5], d[..., 3], d[..., 1])[::-1]
    sums = [e + o for e, o in zip(even, odd, strict=True)]
    differences = [e - o for e, o in zip(even, odd, strict=True)][::-1]
    return np.stack([_rounded(value, down) for value in (*sums, *differences)], -1)


def _fast(quantised: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """The inverse transform of Arai, Agui and Nakajima with constants of eight bits, and nothing rounded."""
    scaled = quantised * _rounded(steps * _AAN_SCALES, 12).astype(np.int32)
    columns = _butterflies(scaled.transpose(0, 2, 1)).transpose(0, 2, 1)
    return np.clip((_butterflies(columns) >> 5) + 128, 0, 255)


def _butterflies(d: np.ndarray) -> np.ndarray:
    tmp10, tmp11, tmp13 = d[..., 0] + d[..., 4], d[..., 0] - d[..., 4], d[..., 2] + d[..., 6]
    tmp12 = (((d[..., 2] - d[..., 6]) * 362) >> 8) - tmp13
    even = (tmp10 + tmp13, tmp11 + tmp12, tmp11 - tmp12, tmp10 - tmp13)
    z13, z10, z11, z12 = d[..., 5] + d[..., 3], d[..., 5] - d[..., 3], d[..., 1] + d[..., 7], d[..., 1] - d[..., 7]
    tmp7, z5 = z11 + z13, ((z10 + z12) * 473) >> 8
    tmp6 = ((z10 * -669) >> 8) + z5 - tmp7
    tmp5 = (((z11 - z13) * 362) >> 8) - tmp6
    tmp4 = ((z12 * 277) >> 8) - z5 + tmp5
    odd = (tmp7, tmp6, tmp5, -tmp4)
    sums = [e + o for e, o in zip(even, odd, strict=True)]
    differences = [e - o for e, o in zip(even, odd, strict=True)][::-1]
    return np.stack([*sums, *differences], -1)


def _doubled(plane: np.ndarray) -> np.ndarray:
    """Colors at full size: each new pixel takes three quarters of the nearest old one and a quarter of the next."""
    rows, columns = plane.shape
    if columns <= 2:
        return plane.repeat(2, 0).repeat(2, 1)
    above, below = np.pad(plane, ((1, 0), (0, 0)), mode="edge")[:-1], np.pad(plane, ((0, 1), (0, 0)), mode="edge")[1:]
    mixed = np.stack([3 * plane + above, 3 * plane + below], 1).reshape(2 * rows, columns)
    left, right = np.pad(mixed, ((0, 0), (1, 0)))[:, :-1], np.pad(mixed, ((0, 0), (0, 1)))[:, 1:]
    even, odd = (3 * mixed + left + 8) >> 4, (3 * mixed + right + 7) >> 4
    even[:, 0], odd[:, -1] = (4 * mixed[:, 0] + 8) >> 4, (4 * mixed[:, -1] + 7) >> 4
    return np.stack([even, odd], -1).reshape(2 * rows, 2 * columns)


def _to_rgb(luma: np.ndarray, blue: np.ndarray, red: np.ndarray) -> np.ndarray:
    half, blue, red = 1 << 15, blue - 128, red - 128
    rgb = (
        luma + ((91881 * red + half) >> 16),
        luma + ((-22554 * blue - 46802 * red + half) >> 16),
        luma + ((116130 * blue + half) >> 16),
    )
    return np.clip(np.stack(rgb, -1), 0, 255).astype(np.uint8)
