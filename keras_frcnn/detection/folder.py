"""Detection on an image or a folder of them: read ahead, grouped, drawn and written in order."""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import track

from keras_frcnn.data.images import about_bits, about_skipped, bits_used, find_images, read_image
from keras_frcnn.data.pipeline import in_parallel
from keras_frcnn.detection.detections import Detections, ImageDetections
from keras_frcnn.detection.detector import Detector
from keras_frcnn.detection.loops import in_batches
from keras_frcnn.detection.write_detections import detection_records, write_csv, write_json
from keras_frcnn.errors import UserError, counted, doing, shown
from keras_frcnn.system.files import check_inside, written_whole
from keras_frcnn.system.signals import held_back

# Of the files beside the pictures, which folders of images might have, too.
RESULTS = tuple(f"detections{part}.{kind}" for part in ("", "-part") for kind in ("json", "csv"))
# One picture cannot have its name; all others can have theirs.
_NAME_ERRORS = (
    *(errno.ENAMETOOLONG, errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.EINVAL, errno.EILSEQ),
)


# File and pixels of an image to the boxes to classify in it.
BoxesOf = Callable[[Path, np.ndarray], np.ndarray]


class Thresholds(NamedTuple):
    """The lowest scores of what is written and of what is drawn."""

    score: float
    draw: float


@dataclass(frozen=True, eq=False)
class Picture:
    """An image that was read: its position among all files, and (H, W, 3) uint8 pixels."""

    position: int
    file: Path
    pixels: np.ndarray


class Found(NamedTuple):
    """What was found in an image, and how the records call it."""

    file_name: str
    image_id: str
    detections: ImageDetections


def detect_folder(
    detector: Detector,
    path: Path,
    out: Path,
    thresholds: Thresholds,
    console: Console,
    *,
    batch: int = 1,
    boxes_of: BoxesOf | None = None,
) -> None:
    """Detects, draws and writes; unreadable images are named at the end, the rest is done.

    Stopped by a signal or by an error of the disk, it keeps what it has found so far beside an
    earlier result, and says so.

    Args:
        path: an image, or a folder of images at any depth.
        out: where pictures, ``detections.json`` and ``detections.csv`` go.
        batch: images that go through the network at once, where they fit.
        boxes_of: file and pixels of an image to the boxes to classify in it.

    Raises:
        UserError: there is no image, or none can be read, or ``out`` cannot hold the results.
    """
    images, skipped = find_images(path)
    if not images:
        raise UserError(". ".join([f"There is no image in {path}", *about_skipped(skipped)]) + ".")
    out.mkdir(parents=True, exist_ok=True)
    for result in RESULTS:
        if (out / result).is_dir():
            raise UserError(
                f"{out / result} is a folder, and a file of that name is to be written."
            )
    used = bits_used(images)
    bits = detector.bits or used or 16
    if used and bits < 16:
        console.print(about_bits(bits), soft_wrap=True)
    root = path if path.is_dir() else path.parent
    for folder in {file.relative_to(root).parent for file in images}:
        check_inside(out / folder, out)
    unreadable: list[str] = []
    # Arrays, of which records are made one by one: as records they take twenty times the memory.
    found_in: dict[int, Found] = {}
    seconds: list[float] = []
    notes: list[str] = []
    dark: list[Path] = []
    of_one_stem = Counter(file.stem for file in images)
    class_names = detector.class_names
    read = functools.partial(_read, bits=bits)
    pictures = track(
        in_parallel(read, enumerate(images), workers=2, ahead=2 * batch + 4),
        "detecting",
        total=len(images),
        console=console,
        disable=not console.is_terminal,
    )
    try:
        readable = _readable(pictures, unreadable)
        for group in in_batches(readable, batch, lambda each: detector.key(*each.pixels.shape[:2])):
            boxes = boxes_of and [boxes_of(each.file, each.pixels) for each in group]
            start = time.perf_counter()
            with doing(f"detecting in {', '.join(str(picture.file) for picture in group)}"):
                found = detector.find([picture.pixels for picture in group], boxes)
            seconds.append((time.perf_counter() - start) / len(group))
            for picture, each in zip(group, found, strict=True):
                dark += [picture.file] if picture.pixels.max() < 16 else []
                detections = each.at_least(thresholds.score)
                name = picture.file.relative_to(root)
                with doing(f"drawing {picture.file}"):
                    drawn = draw(picture.pixels, detections, class_names, thresholds.draw)
                target = _save(drawn, out, name)
                if target.stem != name.name:
                    notes.append(f"the picture of {shown(name)} is {target.name}")
                stem = picture.file.stem
                image_id = stem if of_one_stem[stem] == 1 else name.as_posix()
                found_in[picture.position] = Found(name.as_posix(), image_id, detections)
        _write(out / "detections", found_in, class_names)
    except (KeyboardInterrupt, OSError):
        if found_in:
            finished = f"{len(found_in)} of {len(images)} images are finished, their detections"
            part = out / "detections-part.json"
            try:
                with held_back():
                    _write(out / "detections-part", found_in, class_names)
                console.print(f"{finished} are in {part}", soft_wrap=True)
            except OSError as error:
                console.print(f"{finished} could not be kept: {error}", soft_wrap=True)
        raise
    if dark:
        notes.append(
            f"{counted(len(dark), 'image')} nearly black, below 16 of 255: {shown(dark[0])}, ..."
        )
    for sentence in notes:
        console.print(sentence, style="yellow", soft_wrap=True)
    report(
        console,
        out,
        [detections for _, _, detections in found_in.values()],
        class_names,
        seconds,
        about_skipped(skipped),
        unreadable,
        thresholds,
    )


def _write(target: Path, found_in: Mapping[int, Found], class_names: Sequence[str]) -> None:
    """Writes the detections of all images in their order, as ``target.json`` and ``.csv``."""

    def in_order() -> Iterator[dict]:
        for position in sorted(found_in):
            yield from detection_records(*found_in[position], class_names)

    write_json(target.with_suffix(".json"), in_order())
    write_csv(target.with_suffix(".csv"), in_order())


def _save(drawn: Image.Image, out: Path, name: Path) -> Path:
    """Writes the picture of an image; one that cannot have the image's name gets one of its own.

    Args:
        name: of the image, relative to the folder of all.
    """
    start = os.fsencode(name.name)[:80].decode(errors="ignore")
    digest = hashlib.blake2b(os.fsencode(name), digest_size=6).hexdigest()
    targets = [out / name.parent / f"{name.name}.png", out / f"{start}-{digest}.png"]
    for target in targets[name.parts[0] in RESULTS :]:
        try:
            with written_whole(target) as partial:
                drawn.save(partial, "PNG")
            break
        except OSError as error:
            if error.errno not in _NAME_ERRORS or target == targets[-1]:
                raise
    return target


def _read(item: tuple[int, Path], bits: int) -> Picture | str:
    """The picture, or the reason why there is none."""
    position, file = item
    try:
        return Picture(position, file, read_image(file, bits))
    except UserError as error:
        return str(error)


def _readable(pictures: Iterable[Picture | str], unreadable: list[str]) -> Iterator[Picture]:
    """The pictures; the reasons of files that could not be read go into a list."""
    for picture in pictures:
        if isinstance(picture, str):
            unreadable.append(picture)
        else:
            yield picture


def draw(
    image: np.ndarray, found: ImageDetections, class_names: Sequence[str], threshold: float
) -> Image.Image:
    """The image with the detections that reach the drawing threshold."""
    parts = (found.boxes_image, found.scores, found.classes)
    return Detections(*parts, tuple(class_names), image).at_least(threshold).draw()


def report(
    console: Console,
    out: Path,
    found: Sequence[ImageDetections],
    class_names: Sequence[str],
    seconds: list[float],
    skipped: Sequence[str],
    unreadable: list[str],
    thresholds: Thresholds,
) -> None:
    """What was done, on the screen.

    Args:
        found: in each image.
        skipped: sentences about files that were not read.

    Raises:
        UserError: not one image could be read.
    """
    scores = np.concatenate([np.zeros(0, np.float32), *(each.scores for each in found)])
    drawn = int(np.sum(scores >= np.float32(thresholds.draw)))
    lowest_drawn = max(thresholds.draw, thresholds.score)
    console.print(
        f"{counted(len(found), 'image')}, {counted(len(scores), 'detection')} from score "
        f"{thresholds.score:g}, "
        f"{drawn} drawn from {lowest_drawn:g}"
    )
    for sentence in skipped:
        console.print(sentence, soft_wrap=True)
    for sentence in unreadable:
        console.print(f"not read: {sentence}", style="yellow", soft_wrap=True)
    images = len(found) + len(unreadable)
    if unreadable:
        console.print(f"{len(unreadable)} of the {images} images were left out")
    if not found:
        raise UserError(f"None of the {len(unreadable)} images could be read.")
    if not drawn:
        best = np.zeros(len(class_names))
        for each in found:
            np.maximum.at(best, each.classes - 1, each.scores)
        text = ", ".join(f"{class_names[index]} {best[index]:.3f}" for index in np.argsort(-best))
        console.print(
            f"nothing passed `draw_threshold`; best score per class (0: none from "
            f"{thresholds.score:g}): {text}",
            soft_wrap=True,
        )
    # The first image is traced and compiled with the function.
    first, steady = seconds[0], seconds[1:]
    console.print(
        f"{np.median(steady):.3f} s an image (median; first {first:.1f} s)"
        if steady
        else f"{first:.1f} s an image, start-up included"
    )
    console.print(f"pictures, detections.json and detections.csv are in {out}", soft_wrap=True)
