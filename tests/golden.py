"""Golden digests: what every command computes on a small generated data set, in one JSON file.

    python tests/golden.py --out before.json      # on the code before a change
    python tests/golden.py --compare before.json  # after it, on the same machine

A change of structure leaves every digest as it is. The commands alone are used, so that the script
survives whatever moves beneath them. The numbers belong to one machine: other processors sum in
another order. Without Selective Search (OpenCV) the paper's sheets are left out.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

INPUT = ("--short_side", "200", "--anchor_scales", "2,4", "--anchor_ratios", "0.7,1.4")
TINY = ("--network", "tiny", "--weights", "random", "--seed", "3", *INPUT)
PAPER = (
    *("--network", "tiny", "--weights", "random", "--budget", "0.00005", "--short_side", "128"),
    *("--anchor_scales", "1.5,3", "--window_stride", "2", "--workers", "1"),
    *("--detect_images", "2"),
)
# What differs from run to run, or names a place.
VOLATILE = {"seconds", "command", "versions", "path", "file", "weights", "run", "about", "digest"}
VOLATILE |= {"initial_weights_digest", "images_per_second", "waiting", "time", "machine"}
# Seconds of this machine, in rows and pictures.
TIMED = {"paper/table4.json", "demo/summary.json"}


def main() -> int:
    """Runs every command in a temporary folder and writes or compares the digests."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, help="write the digests to this file")
    parser.add_argument("--compare", type=Path, help="compare with the digests of this file")
    parser.add_argument("--keep", type=Path, help="work in this new folder and keep it")
    parser.add_argument("--without_paper", action="store_true", help="leave the sheets out")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.keep or Path(temporary) / "work"
        work.mkdir(parents=True)
        compute(work, with_paper=not arguments.without_paper)
        found = dict(digests(work))
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    if not arguments.compare:
        return 0
    expected = json.loads(arguments.compare.read_text())
    names = sorted({*expected, *found})
    different = [name for name in names if expected.get(name) != found.get(name)]
    for name in different:
        kind = "gone" if name not in found else "new" if name not in expected else "different"
        print(f"{kind}: {name}")
    print(f"{len(names) - len(different)} of {len(names)} digests are equal")
    return 1 if different else 0


def compute(work: Path, *, with_paper: bool) -> None:
    """Every command once."""
    demo = work / "demo"
    package("demo", "--small", "--out", demo)
    kit, photos = demo / "devkit", demo / "photos"
    lengths = ("--iterations", "24,22,21,23", "--learning_rate", "0.003")
    package("train", "-p", kit, "--out", work / "four", *TINY, *lengths)
    joint = ("--mode", "joint", "--iterations", "24", "--learning_rate", "0.003")
    package("train", "-p", kit, "--out", work / "joint", *TINY, *joint)
    boxes = work / "boxes.h5"
    rpn = ("proposals", "-p", kit, "--method", "rpn", "--run", work / "four", "--out")
    package(*rpn, boxes, "--set", "2007:trainval")
    package(*rpn, work / "test-boxes.h5", "--set", "2007:test")
    alone = ("--proposals", boxes, "--iterations", "22", "--learning_rate", "0.003")
    package("train", "-p", kit, "--out", work / "alone", *TINY, *alone)
    for run in ("four", "joint"):
        flags = ("--run", work / run, "-p", kit, "--set", "2007:test")
        package("evaluate", *flags, "--out", work / f"{run}-evaluation", "--report")
        package("test", "-p", photos, "--run", work / run, "--out", work / f"{run}-pictures")
    package("test", "-p", photos, "--run", work / "four", "--out", work / "chunks", "-n", "50")
    two = ("--scales", "160,240", "--out", work / "scales")
    package("test", "-p", photos, "--run", work / "four", *two)
    given = ("--proposals", work / "test-boxes.h5", "--out", work / "given")
    package("test", "-p", photos, "--run", work / "alone", *given)
    package("test", "-p", photos, "--run", work / "four", "--stage", "2", "--out", work / "two")
    package("export", "--run", work / "four", "--out", work / "exported")
    package("recall", "-p", kit, "--set", "2007:test", "--proposals", work / "test-boxes.h5",
            "--out", work / "recall.json")  # fmt: skip
    package("anchors", "-p", kit, "--out", work / "anchors.json", "--short_side", "200")
    if with_paper:
        package("paper", "all", "-p", kit, "--out", work / "paper", *PAPER)


def package(*words: object) -> None:
    """One command, which has to succeed."""
    command = [sys.executable, "-m", "keras_frcnn", *map(str, words)]
    print("$", " ".join(command[1:]), flush=True)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def digests(work: Path) -> Iterator[tuple[str, str]]:
    """Name and digest of every result below a folder."""
    for path in sorted(work.rglob("*")):
        name = str(path.relative_to(work))
        contents = path.is_file() and name not in TIMED and contents_of(path)
        if contents:
            contents = contents.replace(str(work).encode(), b"")
            digest = hashlib.blake2b(contents, digest_size=12).hexdigest()
            yield name, digest


def contents_of(path: Path) -> bytes | None:
    """What counts of a file: numbers and pixels, not how they are stored; None: nothing."""
    if path.suffix == ".h5":
        return b"".join(arrays_of(path))
    if path.name == "metrics.jsonl":
        lines = path.read_text().splitlines()
        return "\n".join(plain_text(json.loads(line)) for line in lines).encode()
    if path.suffix == ".json":
        return plain_text(json.loads(path.read_text())).encode()
    if path.suffix in (".png", ".jpg"):
        return np.asarray(Image.open(path)).tobytes()
    if path.name == "saved_model.pb":
        return operations_of(path.parent).encode()
    if path.suffix == ".csv":
        return path.read_bytes()
    return None


def arrays_of(path: Path) -> Iterator[bytes]:
    """Names and bytes of all arrays of an HDF5 file."""
    found: list[bytes] = []

    def visit(name: str, member: object) -> None:
        if isinstance(member, h5py.Dataset):
            found.append(name.encode() + np.asarray(member[()]).tobytes())

    with h5py.File(path) as file:
        file.visititems(visit)
    yield from found


def plain_text(value: object) -> str:
    """JSON without what differs from run to run."""

    def plain(value: object) -> object:
        if isinstance(value, dict):
            kept = {key: entry for key, entry in value.items() if not is_volatile(key)}
            return {key: plain(entry) for key, entry in kept.items()}
        return [plain(entry) for entry in value] if isinstance(value, list) else value

    return json.dumps(plain(value), sort_keys=True)


def is_volatile(key: str) -> bool:
    """Whether values of this name differ from run to run."""
    return key in VOLATILE or "second" in key or key.startswith("proposals_file")


def operations_of(folder: Path) -> str:
    """How often each operation stands in a SavedModel."""
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    model = SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    graphs = [meta.graph_def for meta in model.meta_graphs]
    counts = Counter(node.op for graph in graphs for node in graph.node)
    for graph in graphs:
        for function in graph.library.function:
            counts.update(node.op for node in function.node_def)
    return json.dumps(counts, sort_keys=True)


if __name__ == "__main__":
    raise SystemExit(main())
