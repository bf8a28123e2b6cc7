"""Training, validation and test images of data that come without lists, and parts that they name.

A split is a function of names and classes alone. Each image falls by a hash of its name, so that
more pictures leave the others where they are; pictures of one series (frames of a video, a burst,
Roboflow's versions of a picture) fall together, as they show nearly the same.

Shapes and names
----------------
part  ``train``, ``val`` or ``test``; "" where nothing tells.
name  the path of an image from the data folder, its ``image_id``.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePath, PurePosixPath

from keras_frcnn.data.checks import names_found
from keras_frcnn.data.dataset import DataProblem, Problems, Written, WrittenImage
from keras_frcnn.errors import UserError, reading
from keras_frcnn.system.files import parse_json, read_text_bounded, write_text

PARTS = ("train", "val", "test")
# Shares of the test and of the held-out images, and between what these may lie.
_TEST, _HELD_OUT = 0.1, 0.2
_LEAST, _MOST = 0.1, 0.3
# So many images give a validation part, so many series of a class one of it to test on.
_VALIDATES = 200
_TESTS = 3
# Above these shares of the images, numbers count all pictures, and a film is cut.
_NUMBERED_SHARE, _FILM_SHARE = 0.25, 0.5

_NAMED = re.compile(
    r"(?:(train|training)|(val|valid|validation)|(test|testing))(?:[ _-]?(?:19|20)\d\d)?"
)
_OF_NO_PART = {"images", "image", "img", "imgs", "jpegimages"}
_VERSION = re.compile(r"([._](jpe?g|png|bmp|webp|tiff?))?\.rf\.\w{6,}$")
_FRAME = re.compile(
    r"(.*?)[ _.-]*(?:frame|burst|[_.](?:mp4|avi|mov|mkv|webm|mpe?g|m4v))[ _.-]*(\d{1,18})\D*"
)
_NUMBERED = re.compile(r"(.*[^\W\d_].*?)(?:[ _./-]+\d+| ?\(\d+\))")

_MOST_BYTES = 2**28


def part_named(name: str) -> str:
    """``val`` of ``valid``, ``Validation`` or ``val2017``, and so on; "" of other names."""
    match = _NAMED.fullmatch(name.casefold().strip())
    return PARTS[(match.lastindex or 1) - 1] if match else ""


def part_of(*names: str) -> str:
    """The part that the first of some names tells which tells any."""
    return next(filter(None, map(part_named, names)), "")


def part_of_file(place: PurePath) -> str:
    """The part that a file's path tells, or the name of a JSON file: ``instances_train2017``."""
    words = re.split(r"[_.]", place.stem) if place.suffix.lower() == ".json" else ()
    return part_of(*words, *place.parts[:-1], place.stem)


def by_name(image: WrittenImage) -> tuple[str, str]:
    """The order of images that no list gives: by their paths without suffixes."""
    return PurePosixPath(image.image_id).with_suffix("").as_posix(), image.image_id


def chosen_parts(
    root: Path,
    found: Sequence[tuple[WrittenImage, str]],
    problems: Problems,
    sets: str | None,
    default_split: str = "trainval",
    kept: Mapping[str, str] | None = None,
) -> Written:
    """The images of some parts, which the data name or a split gives.

    Args:
        root: where the data lie; its own name may be that of a part.
        found: all images and their parts.
        problems: gets those of images in no part.
        sets: ``train``, ``val``, ``test``, several with ``+``, ``trainval`` or ``all``; None:
            ``train`` to train, to test ``test``, else ``val``.
        default_split: ``test`` for the latter.
        kept: the split of a run; images that it has stay where it says.

    Raises:
        UserError: there is no such part.
    """
    split: dict[str, str] = {}
    parts = {part for _, part in found} - {""}
    whole = part_named(root.absolute().stem)
    if not parts and whole:
        found, parts = [(image, whole) for image, _ in found], {whole}
    elif not parts:
        classes = {image.image_id: _classes(image) for image, _ in found}
        split, parts = make_split(classes, kept or {}), set(PARTS)
        found = [(image, split[image.image_id]) for image, _ in found]
    elif "train" not in parts and "" in {part for _, part in found}:
        found, parts = [(image, part or "train") for image, part in found], {*parts, "train"}
    for image, part in found:
        if not part:
            reason = f"expected a folder of {', '.join(sorted(parts))}: it is in none of the parts"
            problems.append_once(DataProblem("no part", str(image.path), "", reason, "noted"))
    names = _names(root, sets, default_split, parts)
    wanted = (
        [found] if "all" in names else [[pair for pair in found if pair[1] == n] for n in names]
    )
    images = list({image.path: image for pairs in wanted for image, _ in pairs}.values())
    of = [image for image, _ in found] if split else images
    class_names = names_found(written for image in of for written in image.objects)
    others = set() if "all" in names else parts - set(names)
    own = [each for each in problems if _part_of_problem(root, each, split) not in others]
    return Written(images, own, class_names, names, split)


def _part_of_problem(root: Path, problem: DataProblem, split: Mapping[str, str]) -> str:
    """Which part an image that was lost would have been in: the others are not to blame."""
    if not split:
        place = PurePath(problem.file)
        return part_of_file(place.relative_to(root)) if place.is_relative_to(root) else ""
    if problem.action != "image dropped":
        return ""
    share = _hash(f"{problem.file} {problem.where}")
    return _part_of_share(share, _second_half(len(split)))


def _classes(image: WrittenImage) -> set[str]:
    return {written.class_name for written in image.objects}


def _names(root: Path, sets: str | None, default_split: str, parts: set[str]) -> list[str]:
    """The names asked for, all of which exist."""
    if sets is None:
        wanted = ["test", "val"] if default_split == "test" else ["train"]
        names = [name for name in wanted if name in parts][:1]
    else:
        wanted = [name.strip() for name in sets.split("+")]
        both = [name for name in ("train", "val") if name in parts]
        meant = (both if each == "trainval" else [part_named(each) or each] for each in wanted)
        names = [name for each in meant for name in each]
    if not names or not set(names) <= {*parts, "all"}:
        there = ", ".join(sorted(parts, key=PARTS.index))
        raise UserError(
            f"Expected images for {' or '.join(wanted)} in {root}, found the parts: {there}; "
            "choose `sets` among these, several joined with +, or all."
        )
    return list(dict.fromkeys(names))


def make_split(
    classes: Mapping[str, Collection[str]], kept: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Which part each image falls into.

    Four fifths train; the rest test, from 200 images on one half of the rest validates. Every class
    has images to train on, and images to test on where it is in three series or more.

    Args:
        classes: names of the classes in each image, by its name.
        kept: an earlier split, whose images stay; new images of a series follow it.
    """
    kept = kept or {}
    series = _series(classes)
    sizes = Counter(series.values())
    shares = {each: _hash(each) for each in sizes}
    held_out = _second_half(len(classes))
    parts = {each: _part_of_share(share, held_out) for each, share in shares.items()}
    fixed = {series[name]: kept[name] for name in sorted(classes) if name in kept}
    parts.update(fixed)
    free = sorted(shares.keys() - fixed.keys(), key=shares.__getitem__)
    _limit(parts, sizes, free)
    of_class: dict[str, set[str]] = {}
    for name, names in classes.items():
        for each in names:
            of_class.setdefault(each, set()).add(series[name])
    _give_all_classes(parts, [of_class[name] for name in sorted(of_class)], free)
    return {name: kept.get(name) or parts[series[name]] for name in classes}


def _second_half(images: int) -> str:
    return "test" if images < _VALIDATES else "val"


def _part_of_share(share: float, held_out: str) -> str:
    return "train" if share >= _HELD_OUT else "test" if share < _TEST else held_out


def _limit(parts: dict[str, str], sizes: Mapping[str, int], free: Sequence[str]) -> None:
    """Moves series until the images held out are neither too many nor too few.

    Args:
        free: series that may be moved, in the order of their hashes.
    """

    total = sum(sizes.values())
    held_out = sum(sizes[each] for each, part in parts.items() if part != "train")
    for each in reversed(free):
        if parts[each] != "train" and _MOST * total < held_out > sizes[each]:
            parts[each] = "train"
            held_out -= sizes[each]
    for each in free:
        if parts[each] == "train" and _LEAST * total > held_out < total - sizes[each]:
            parts[each] = "test"
            held_out += sizes[each]


def _give_all_classes(
    parts: dict[str, str], of_classes: Sequence[set[str]], free: Sequence[str]
) -> None:
    """Moves series so that each class has some to train on, and to test on where it has several.

    Args:
        of_classes: the series of each class.
        free: series that may be moved, in the order of their hashes.
    """

    def lacks(part: str, of_class: set[str]) -> bool:
        return all(parts[each] != part for each in of_class)

    for of_class in of_classes:
        if lacks("train", of_class):
            parts.update([(each, "train") for each in free if each in of_class][-1:])
    for of_class in of_classes:
        if len(of_class) < _TESTS or not lacks("test", of_class):
            continue
        for each in (each for each in free if each in of_class):
            before, parts[each] = parts[each], "test"
            if not any(each in other and lacks("train", other) for other in of_classes):
                break
            parts[each] = before


def _series(classes: Mapping[str, Collection[str]]) -> dict[str, str]:
    """The series of each image: its own name where it has no series."""
    plain = {name: _plain(name) for name in classes}
    films: dict[str, list[tuple[int, str]]] = {}
    numbered: dict[str, list[str]] = {}
    for name in sorted(classes):
        if match := _FRAME.fullmatch(plain[name]):
            films.setdefault(match[1], []).append((int(match[2]), name))
        elif match := _NUMBERED.fullmatch(plain[name]):
            numbered.setdefault(match[1], []).append(name)
    series = dict(plain)
    for film, frames in films.items():
        pieces = 1
        if len(frames) > _FILM_SHARE * len(classes):
            pieces = math.ceil(len(frames) / (_TEST * len(classes)))
        for place, (_, name) in enumerate(sorted(frames)):
            series[name] = f"{film}/{place * pieces // len(frames)}"
    everywhere = Counter(each for names in classes.values() for each in set(names))
    for stem, names in numbered.items():
        here = Counter(each for name in names for each in set(classes[name]))
        alone = any(here[each] == everywhere[each] for each in here)
        if len(names) <= _NUMBERED_SHARE * len(classes) and not alone:
            series.update(dict.fromkeys(names, stem))
    return series


def _plain(name: str) -> str:
    """A name without what differs between layouts, and between versions of one picture."""
    path = PurePosixPath(unicodedata.normalize("NFC", name).casefold().replace("\\", "/"))
    folders = [each for each in path.parts[:-1] if each not in _OF_NO_PART]
    return "/".join([*folders, _VERSION.sub("", path.stem)])


def _hash(series: str) -> float:
    """A number from 0 to 1, evenly spread."""
    digest = hashlib.sha256(series.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def write_split(file: Path, split: Mapping[str, str]) -> None:
    """Keeps a split, for a run."""
    write_text(file, json.dumps(split, indent=0, sort_keys=True) + "\n")


def read_split(file: Path) -> dict[str, str]:
    """A split that was kept.

    Raises:
        UserError: the file is none.
    """
    with reading(file, "the split of a run", "put the run's own back, or start a new run"):
        split = parse_json(read_text_bounded(file, _MOST_BYTES))
        if not isinstance(split, dict) or not set(map(str, split.values())) <= set(PARTS):
            raise ValueError(f"expected names of images with one of {', '.join(PARTS)}")
        return split
