"""Times the input of training: files or cached pixels to batches of network inputs.

Run from the project root: ``python -m benchmarks.input_rate -p VOCdevkit``. The network's own work
is left out, so the rate is what a step that takes no time would see.

Shapes and names
----------------
pass  every image of the set once in each orientation.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path

from keras_frcnn.data.voc import load_voc
from keras_frcnn.recipes import PAPER
from keras_frcnn.training.caches import ImageCache
from keras_frcnn.training.feeding import Feed
from keras_frcnn.training.units import training_units


def time_pass(units, config, images: ImageCache | None, workers: int) -> tuple[float, float]:
    """Seconds by the clock, and of all threads together, for an image of one pass."""

    feed = Feed(units, config, images, workers=workers)
    wall, cpu = time.perf_counter(), time.process_time()
    for batch in feed.batches(range(len(units))):
        batch["image"][0, 0, 0, 0].numpy()  # waits for the device
    count = len(units)
    return (time.perf_counter() - wall) / count, (time.process_time() - cpu) / count


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("-p", "--path", type=Path, required=True, help="VOCdevkit folder")
    parser.add_argument("--set", default="2007:trainval", help="image sets")
    parser.add_argument("--images", type=int, default=100, help="the first so many")
    parser.add_argument("--short_side", type=int, default=600)
    parser.add_argument("--long_side", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2, help="decoding threads")
    parser.add_argument("--passes", type=int, default=5, help="of each kind, in turns")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    config = dataclasses.replace(
        PAPER.image, short_side=arguments.short_side, long_side=arguments.long_side
    )
    examples = load_voc(arguments.path, arguments.set).examples[: arguments.images]
    units = training_units(examples, flips=True)
    cache = ImageCache(examples, None)
    kinds = {"files": None, "cached": cache}
    times = {kind: [] for kind in kinds}
    for _ in range(arguments.passes + 1):
        for kind, images in kinds.items():
            times[kind].append(time_pass(units, config, images, arguments.workers))
    print(f"{len(examples)} images, both orientations, short side {arguments.short_side}")
    print(f"{'read from':<10} {'CPU ms':>8} {'images/s and core':>18} {'images/s':>9}")
    for kind, found in times.items():
        wall, cpu = (sorted(values)[len(found) // 2] for values in zip(*found[1:], strict=True))
        print(f"{kind:<10} {1000 * cpu:>8.1f} {1 / cpu:>18.1f} {1 / wall:>9.1f}")


if __name__ == "__main__":
    main()
