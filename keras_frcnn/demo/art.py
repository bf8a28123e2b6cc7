"""Shapes, textures and colours of which the demo's pictures are made.

Everything here is a function of its arguments and of the generator handed in. Masks are drawn by
Pillow at four times the size and averaged down, so that edges are smooth and a mask is exactly
what one sees.

Shapes and names
----------------
h, w  height and width of a patch of pixels.
rng  a ``numpy.random.Generator``; every draw of it is part of the picture.
outline  (points, 2) float64 (y, x) around the origin, in units of the shape's own size.
mask  (h, w) float32, the covered part of every pixel, 0 to 1.
tones  (h, w) float32, 0 to 1, where 0 is one colour and 1 another.
colour  (3,) float32 RGB, 0 to 1.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

_SUPERSAMPLING = 4


@dataclass(frozen=True, eq=False)
class Shape:
    """A filled outline with, maybe, a hole in it."""

    outline: np.ndarray
    hole: np.ndarray | None = None

    def transformed(self, matrix: np.ndarray) -> Shape:
        """The shape under a linear map, matrix (2, 2)."""
        hole = None if self.hole is None else self.hole @ matrix.T
        return Shape(self.outline @ matrix.T, hole)

    @property
    def sides(self) -> np.ndarray:
        """(2,) float64: height and width of the box around the outline."""
        return np.ptp(self.outline, axis=0)


def polar_outline(radii: Sequence[float]) -> np.ndarray:
    """Corners at the given distances from the origin, at equal angles, starting upwards."""
    angles = np.arange(len(radii)) * (2 * math.pi / len(radii))
    return np.stack([-np.cos(angles), np.sin(angles)], axis=1) * np.asarray(radii)[:, None]


def _circle(radius: float) -> np.ndarray:
    return polar_outline([radius] * 48)


def _cross(arm: float) -> np.ndarray:
    corner = [(-1, -arm), (-1, arm), (-arm, arm)]
    turns = [np.array([[c, -s], [s, c]]) for c, s in ((1, 0), (0, 1), (-1, 0), (0, -1))]
    return np.concatenate([np.array(corner) @ turn for turn in turns])


def _crescent() -> np.ndarray:
    outer = _circle(1.0)[:25]
    inner = _circle(1.0)[24::-1] * (1.0, 0.45)
    return np.concatenate([outer, inner])


OBJECT_SHAPES = {
    "cross": Shape(_cross(0.32)),
    "ring": Shape(_circle(1.0), hole=_circle(0.56)),
    "star": Shape(polar_outline([1.0, 0.42] * 5)),
    "triangle": Shape(polar_outline([1.0] * 3)),
}
"""The classes of the demo: told apart by their form only."""

DISTRACTOR_SHAPES = {
    "bar": Shape(np.array([(-1, -0.2), (-1, 0.2), (1, 0.2), (1, -0.2)])),
    "crescent": Shape(_crescent()),
    "hook": Shape(np.array([(-1, -0.6), (-1, -0.2), (0.6, -0.2), (0.6, 0.6), (1, 0.6), (1, -0.6)])),
}
"""Things of the same size, colours and textures that belong to no class."""


def random_pose(rng: np.random.Generator, shape: Shape, longer_side: float) -> Shape:
    """The shape turned by any angle, stretched by up to a quarter, and given its size.

    Args:
        longer_side: the longer side of the box around the result, in pixels.
    """
    angle = rng.uniform(0, 2 * math.pi)
    stretch = rng.uniform(0.8, 1.25)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    posed = shape.transformed(np.diag([stretch, 1.0])).transformed(turn)
    return posed.transformed(np.eye(2) * (longer_side / posed.sides.max()))


def draw_mask(shape: Shape, centre: tuple[float, float], height: int, width: int) -> np.ndarray:
    """Mask (height, width) float32 of a shape in pixels whose origin lies at ``centre`` (y, x)."""
    canvas = Image.new("L", (width * _SUPERSAMPLING, height * _SUPERSAMPLING))
    pen = ImageDraw.Draw(canvas)
    for outline, value in ((shape.outline, 255), (shape.hole, 0)):
        if outline is not None:
            points = (outline + centre) * _SUPERSAMPLING
            # Pillow counts pixel centres and draws the border, hence the half pixel.
            pen.polygon([(float(x) - 0.5, float(y) - 0.5) for y, x in points], fill=value)
    return np.asarray(canvas.reduce(_SUPERSAMPLING), np.float32) / 255


def draw_stroke(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Mask (height, width) float32 of a thin bent line through any part of the picture."""
    ends = rng.uniform(-0.2, 1.2, (3, 2)) * (height, width)
    time = np.linspace(0, 1, 24)[:, None]
    curve = (1 - time) ** 2 * ends[0] + 2 * time * (1 - time) * ends[1] + time**2 * ends[2]
    canvas = Image.new("L", (width * _SUPERSAMPLING, height * _SUPERSAMPLING))
    thickness = round(_SUPERSAMPLING * rng.uniform(1.0, 4.0))
    points = [(float(x), float(y)) for y, x in curve * _SUPERSAMPLING]
    ImageDraw.Draw(canvas).line(points, fill=255, width=thickness, joint="curve")
    return np.asarray(canvas.reduce(_SUPERSAMPLING), np.float32) / 255


def noise(
    rng: np.random.Generator, height: int, width: int, cell: float, octaves: int = 3
) -> np.ndarray:
    """Tones of smooth random blotches: octaves of half the size and half the strength each.

    Args:
        cell: size of the largest blotches in pixels.
    """
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        step = max(cell / 2**octave, 1.0)
        rows, columns = math.ceil(height / step) + 3, math.ceil(width / step) + 3
        grid = Image.fromarray(rng.random((rows, columns), np.float32))
        window = (1.0, 1.0, 1.0 + width / step, 1.0 + height / step)
        layer = grid.resize((width, height), Image.Resampling.BICUBIC, box=window)
        total += np.asarray(layer) / 2**octave
    return (total - total.min()) / max(float(np.ptp(total)), 1e-6)


def _directed(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Distance in pixels along a random direction, bent a little, (height, width) float32."""
    angle = rng.uniform(0, 2 * math.pi)
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    bend = 8 * noise(rng, height, width, cell=60, octaves=1)
    return rows * math.sin(angle) + columns * math.cos(angle) + bend


def gradient(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Tones that run from one side to the other."""
    distance = _directed(rng, height, width)
    return (distance - distance.min()) / max(float(np.ptp(distance)), 1e-6)


def stripes(rng: np.random.Generator, height: int, width: int, period: float) -> np.ndarray:
    """Tones of parallel soft stripes, ``period`` pixels from one to the next."""
    wave = np.sin(_directed(rng, height, width) * (2 * math.pi / period))
    return np.clip(0.5 + wave, 0, 1)


def checks(rng: np.random.Generator, height: int, width: int, period: float) -> np.ndarray:
    """Tones of a soft, slightly skewed chequerboard."""
    return np.abs(stripes(rng, height, width, period) - stripes(rng, height, width, period))


def texture(rng: np.random.Generator, height: int, width: int, coarseness: float) -> np.ndarray:
    """Tones of one of the textures above, its details ``coarseness`` pixels large or smaller."""
    size = coarseness * rng.uniform(0.5, 1.0)
    draw = rng.integers(4)
    if draw == 0:
        return noise(rng, height, width, size)
    if draw == 1:
        return stripes(rng, height, width, size)
    if draw == 2:
        return checks(rng, height, width, size)
    return 0.7 * gradient(rng, height, width) + 0.3 * noise(rng, height, width, size)


def random_colour(
    rng: np.random.Generator,
    saturation: tuple[float, float],
    value: tuple[float, float],
) -> np.ndarray:
    """A colour of any hue within the given ranges of saturation and value."""
    rgb = colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value))
    return np.array(rgb, np.float32)


def contrasting_colour(rng: np.random.Generator, surroundings: np.ndarray) -> np.ndarray:
    """A lively colour that can be told from ``surroundings`` (3,) at a glance."""
    while True:
        colour = random_colour(rng, (0.3, 1.0), (0.15, 1.0))
        if np.linalg.norm(colour - surroundings) > 0.5:
            return colour


def mix(first: np.ndarray, second: np.ndarray, tones: np.ndarray) -> np.ndarray:
    """(h, w, 3) float32: ``first`` where the tones are 0, ``second`` where they are 1.

    The two are colours (3,) or pictures (h, w, 3).
    """
    return first + (second - first) * tones[..., None]
