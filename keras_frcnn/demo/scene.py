"""One generated photograph: what lies where, what hides what, and the boxes that follow from it.

Things are laid onto a textured ground one after the other, the later above the earlier. Some belong
to a class, some to none. A thing is put down only where everything below stays recognisable; an
object of which less than ``CLEARLY_VISIBLE`` is left is marked difficult, as VOC does. Masks are
drawn at four times the size and averaged down: edges are smooth and a mask is what one sees.

Shapes and names
----------------
H, W  height and width of the picture, h, w  of any patch of pixels.
rng  a ``numpy.random.Generator``; every draw of it is part of the picture.
picture  (H, W, 3) float32 RGB, 0 to 1, while painting; uint8 when done.
outline  (points, 2) float64 (y, x) around the origin, in units of the shape's own size.
mask  (h, w) float32, the covered part of every pixel, 0 to 1.
tones  (h, w) float32, 0 to 1, where 0 is one colour and 1 another.
colour  (3,) float32 RGB, 0 to 1.
boxes_image  half-open (y1, x1, y2, x2) in pixels.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

# Smallest and largest longer side of an object in pixels, before anything hides part of it.
LONGER_SIDE = (28.0, 112.0)
# The visible part of an object below which it is difficult.
CLEARLY_VISIBLE = 0.55
_BARELY_VISIBLE = 0.35
_WHOLE = 0.95
_LARGEST_IOU = 0.3  # above it, non-maximum suppression at 0.3 could not return both
_PLACES_TRIED = 30
_SHADOW = 9  # pixels that a shadow reaches beyond its thing: moved by 3, blurred over 6
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


# The classes of the demo: told apart by their form only.
OBJECT_SHAPES = {
    "cross": Shape(_cross(0.32)),
    "ring": Shape(_circle(1.0), hole=_circle(0.56)),
    "star": Shape(polar_outline([1.0, 0.42] * 5)),
    "triangle": Shape(polar_outline([1.0] * 3)),
}
# Things of the same size, colours and textures that belong to no class.
DISTRACTOR_SHAPES = {
    "bar": Shape(np.array([(-1, -0.2), (-1, 0.2), (1, 0.2), (1, -0.2)])),
    "crescent": Shape(_crescent()),
    "hook": Shape(np.array([(-1, -0.6), (-1, -0.2), (0.6, -0.2), (0.6, 0.6), (1, 0.6), (1, -0.6)])),
}


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


def draw_mask(shape: Shape, centre: np.ndarray, height: int, width: int) -> np.ndarray:
    """Mask (height, width) float32 of a shape in pixels whose origin lies at a centre (y, x)."""
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


@dataclass(frozen=True, eq=False)
class SceneObject:
    """An object in a picture.

    Attributes:
        name: its class.
        box_image: (4,) int32, tight around the pixels of which it covers at least half.
        whole_box_image: (4,) int32, the same if nothing hid it and the picture had no border.
        visible_mask: (H, W) float32, what is seen of it.
        visible_part: the seen share of its whole area, that outside the picture included.
        truncated: whether the box has less than 0.95 of the area of the whole object's box.
        difficult: whether it is hidden too much to ask for.
    """

    name: str
    box_image: np.ndarray
    whole_box_image: np.ndarray
    visible_mask: np.ndarray
    visible_part: float
    truncated: bool
    difficult: bool


@dataclass(frozen=True, eq=False)
class Scene:
    """A finished picture, (H, W, 3) uint8 RGB, and the objects in it."""

    picture: np.ndarray
    objects: tuple[SceneObject, ...]


@dataclass(frozen=True, eq=False)
class _Thing:
    """Something laid onto the ground; ``name`` is None for what belongs to no class."""

    name: str | None
    mask: np.ndarray
    whole_area: float
    whole_box: np.ndarray  # may reach out of the picture


def draw_scene(
    rng: np.random.Generator, height: int, width: int, *, objects: tuple[int, int]
) -> Scene:
    """Draw a picture.

    Args:
        objects: least and largest number of objects. The least number is met by objects that are
            not difficult: a layout that falls short is thrown away and another one drawn.
    """
    least, largest = objects
    picture = _paint_ground(rng, height, width)
    while True:
        things = _lay_out(rng, height, width, int(rng.integers(least, largest + 1)))
        found = _describe(things)
        if sum(not item.difficult for item in found) >= least:
            break
    for thing in things:
        picture = _paint_thing(rng, picture, thing.mask)
    return Scene(_develop(rng, picture), found)


def tight_box(mask: np.ndarray) -> np.ndarray:
    """(4,) int32 half-open box around the pixels of which at least half is covered.

    All zeros where there is none.
    """
    rows, columns = (np.flatnonzero((mask >= 0.5).any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return np.zeros(4, np.int32)
    return np.array([rows[0], columns[0], rows[-1] + 1, columns[-1] + 1], np.int32)


def _lay_out(rng: np.random.Generator, height: int, width: int, objects: int) -> list[_Thing]:
    """Objects and distractors, lowest first; one that finds no place is left out."""
    names = [str(rng.choice(list(OBJECT_SHAPES))) for _ in range(objects)]
    names += [str(rng.choice(list(DISTRACTOR_SHAPES))) for _ in range(rng.integers(1, 5))]
    things: list[_Thing] = []
    for name in rng.permutation(names):
        side = float(np.exp(rng.uniform(*np.log(LONGER_SIDE))))
        for _ in range(_PLACES_TRIED):
            thing = _random_thing(rng, str(name), side, height, width)
            if _fits(thing, things):
                things.append(thing)
                break
    return things


def _random_thing(
    rng: np.random.Generator, name: str, side: float, height: int, width: int
) -> _Thing:
    """A thing of the given longer side anywhere; its centre lies in the picture."""
    is_object = name in OBJECT_SHAPES
    shape = (OBJECT_SHAPES if is_object else DISTRACTOR_SHAPES)[name]
    posed = random_pose(rng, shape, side)
    centre = rng.uniform((0.0, 0.0), (height, width))
    # Shapes are not quite centred on their origin, so the patch is twice as large as the shape.
    patch_side = 2 * math.ceil(side) + 4
    corner = np.floor(centre - patch_side / 2).astype(np.int32)
    patch = draw_mask(posed, centre - corner, patch_side, patch_side)
    whole_box = tight_box(patch) + np.tile(corner, 2)
    mask = np.zeros((height, width), np.float32)
    top, left = np.maximum(corner, 0)
    bottom, right = np.minimum(corner + patch_side, (height, width))
    mask[top:bottom, left:right] = patch[
        top - corner[0] : bottom - corner[0], left - corner[1] : right - corner[1]
    ]
    return _Thing(name if is_object else None, mask, float(patch.sum()), whole_box)


def _fits(thing: _Thing, below: list[_Thing]) -> bool:
    """Whether it can lie above the others with everything still recognisable."""
    least_inside = CLEARLY_VISIBLE if thing.name else _BARELY_VISIBLE
    if thing.mask.sum() < least_inside * thing.whole_area:
        return False
    if any(_iou(thing.whole_box, other.whole_box) > _LARGEST_IOU for other in below):
        return False
    return all(
        mask.sum() >= _BARELY_VISIBLE * other.whole_area
        for mask, other in zip(_visible_masks([*below, thing]), below, strict=False)
    )


def _visible_masks(things: list[_Thing]) -> list[np.ndarray]:
    """What is seen of each, (H, W) float32, given that later ones lie above earlier ones."""
    visible = []
    uncovered = np.float32(1)
    for thing in reversed(things):
        visible.append(thing.mask * uncovered)
        uncovered = uncovered * (1 - thing.mask)
    return visible[::-1]


def _iou(first: np.ndarray, second: np.ndarray) -> float:
    overlap = np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2])
    intersection = float(np.prod(np.maximum(overlap, 0)))
    return intersection / (_area(first) + _area(second) - intersection)


def _area(box: np.ndarray) -> float:
    return float(np.prod(box[2:] - box[:2]))


def _describe(things: list[_Thing]) -> tuple[SceneObject, ...]:
    """The objects among the things, with what is seen of them."""
    described = []
    for thing, mask in zip(things, _visible_masks(things), strict=True):
        if thing.name is None:
            continue
        box = tight_box(mask)
        part = float(mask.sum()) / thing.whole_area
        described.append(
            SceneObject(
                name=thing.name,
                box_image=box,
                whole_box_image=thing.whole_box,
                visible_mask=mask,
                visible_part=part,
                truncated=_area(box) < _WHOLE * _area(thing.whole_box),
                difficult=part < CLEARLY_VISIBLE,
            )
        )
    return tuple(described)


def _paint_ground(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Two or three muted colours in blotches and a coarse texture, with thin strokes across."""
    first, second, third = (random_colour(rng, (0.1, 0.55), (0.3, 0.9)) for _ in range(3))
    second = 0.5 * first + 0.5 * second
    picture = mix(first, second, texture(rng, height, width, coarseness=40))
    blotches = noise(rng, height, width, cell=90, octaves=4)
    picture = mix(picture, third, np.clip(2.5 * blotches - 1.25, 0, 1) * rng.uniform(0.2, 0.7))
    for _ in range(rng.integers(0, 5)):
        stroke = draw_stroke(rng, height, width)
        colour = random_colour(rng, (0.1, 0.9), (0.1, 1.0))
        picture = mix(picture, colour, stroke * rng.uniform(0.4, 0.9))
    return picture


def _paint_thing(rng: np.random.Generator, picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Lay a thing of random colours and texture onto the picture, with a soft shadow below it."""
    y1, x1, y2, x2 = tight_box(mask)
    window = np.s_[max(y1 - 2, 0) : y2 + 2 + _SHADOW, max(x1 - 2, 0) : x2 + 2 + _SHADOW]
    ground, cover = picture[window], mask[window]
    height, width = cover.shape
    beneath = (ground * cover[..., None]).sum(axis=(0, 1)) / cover.sum()
    colour = contrasting_colour(rng, beneath)
    other = 0.65 * colour + 0.35 * random_colour(rng, (0.2, 1.0), (0.1, 1.0))
    surface = mix(colour, other, texture(rng, height, width, coarseness=16))
    light = 0.85 + 0.3 * gradient(rng, height, width)
    shaded = ground * (1 - 0.45 * _shadow(cover))[..., None]
    painted = picture.copy()
    painted[window] = mix(shaded, np.clip(surface * light[..., None], 0, 1), cover)
    return painted


def _shadow(mask: np.ndarray) -> np.ndarray:
    """The mask, blurred and moved down and to the right by three pixels."""
    moved = np.pad(mask, ((3, 0), (3, 0)))[:-3, :-3]
    blurred = Image.fromarray(np.uint8(moved * 255)).filter(ImageFilter.GaussianBlur(3))
    return np.asarray(blurred, np.float32) / 255


def _develop(rng: np.random.Generator, picture: np.ndarray) -> np.ndarray:
    """Uneven light and grain, as a camera gives them; (H, W, 3) uint8."""
    light = 0.85 + 0.3 * gradient(rng, *picture.shape[:2])
    strength = rng.uniform(0.005, 0.03)
    grain = strength * rng.standard_normal(picture.shape, np.float32)
    return np.uint8(np.clip(picture * light[..., None] + grain, 0, 1) * 255 + 0.5)
