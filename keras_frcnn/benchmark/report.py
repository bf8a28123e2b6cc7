"""What a benchmark found, as tables, ratios and a record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from keras_frcnn.system.timing import Timing

COMPRESSED = "compressed"
SELECTION = ("proposals", "pooling", "detections")


@dataclass(frozen=True, eq=False)
class Measured:
    """What a benchmark found of each part, by ``precision/part`` or ``torchvision ...``.

    Attributes:
        operations: 0 where none are counted.
        rates: operations a second of large matrix products, by precision.
        memory: GB.
        images: that a call sees.
    """

    timings: Mapping[str, Timing]
    operations: Mapping[str, int]
    rates: Mapping[str, float]
    memory: Mapping[str, float]
    images: Mapping[str, int]

    def cpu(self, key: str) -> float | None:
        """Median CPU seconds; ``None`` where it was not timed."""
        return self.timings[key].median_cpu if key in self.timings else None

    def images_per_second(self, key: str) -> float:
        """Images of a call over its median seconds."""
        return self.images[key] / self.timings[key].median_wall

    def times_limit(self, key: str) -> float | None:
        """Median seconds over the limit; ``None`` without counted operations."""
        if not self.operations.get(key):
            return None
        rate = self.rates[key.split("/")[0].split("+")[0]]
        return self.timings[key].median_wall * rate / self.operations[key]


def ratios(measured: Measured) -> dict[str, float]:
    """Ratios of median CPU seconds, by what they compare, of all parts that were timed."""
    found: dict[str, float] = {}

    def add(text: str, above: str, below: str) -> None:
        first, second = measured.cpu(above), measured.cpu(below)
        if first is not None and second:
            found[text] = first / second

    for name in sorted({key.split("/")[0] for key in measured.timings if "/" in key}):
        add(f"testing / bare, {name}", f"{name}/whole", f"{name}/bare")
        for stage in (1, 2):
            below, later = f"{name}/stage{stage}", stage + 2
            add(f"stage {stage} / bare, {name}", below, f"{name}/bare{stage}")
            add(f"stage {later} / stage {stage}, {name}", f"{name}/stage{later}", below)
        add(f"joint / bare convolutions forward, {name}", f"{name}/joint", "float32/conv")
        whole = measured.cpu(f"{name}/whole")
        parts = [measured.cpu(f"{name}/{part}") for part in SELECTION]
        selection = [seconds for seconds in parts if seconds is not None]
        if whole and len(selection) == len(parts):
            found[f"proposals, pooling and detections / testing, {name}"] = sum(selection) / whole
        if name != "float32":
            for part, text in (("whole", "testing"), ("stage1", "stage 1"), ("stage2", "stage 2")):
                add(f"{text}, {name} / float32", f"{name}/{part}", f"float32/{part}")
        for peer, part in (("testing", "whole"), ("joint", "joint")):
            add(f"{peer}, {name} / torchvision", f"{name}/{part}", f"torchvision {peer}")
    return found


def print_tables(measured: Measured, console: Console) -> None:
    """A table for each precision, then the ratios."""
    groups: dict[str, list[str]] = {}
    for key in measured.timings:
        groups.setdefault(key.split("/")[0] if "/" in key else key, []).append(key)
    for group, keys in groups.items():
        table = Table(title=_title(group, measured), title_justify="left")
        table.add_column("part")
        for heading in ("ms", "+-", "CPU ms", "images/s", "GFLOP", "x limit", "peak GB"):
            table.add_column(heading, justify="right")
        for key in keys:
            timing, limit = measured.timings[key], measured.times_limit(key)
            memory = measured.memory.get(key)
            table.add_row(
                key.split("/")[-1],
                f"{1000 * timing.median_wall:.1f}",
                f"{1000 * timing.spread:.1f}",
                f"{1000 * timing.median_cpu:.1f}",
                f"{measured.images_per_second(key):.2f}",
                f"{measured.operations[key] / 1e9:.1f}" if limit else "",
                f"{limit:.2f}" if limit else "",
                f"{memory:.2f}" if memory else "",
            )
        console.print(table)
    table = Table(title="ratios of median CPU seconds", title_justify="left")
    table.add_column("of what")
    table.add_column("ratio", justify="right")
    for text, value in ratios(measured).items():
        table.add_row(text, f"{value:.3f}")
    console.print(table)


def _title(group: str, measured: Measured) -> str:
    rate = measured.rates.get(group.split("+")[0])
    return group if rate is None else f"{group}, matrix products at {rate / 1e9:.0f} GFLOP/s"


def record(measured: Measured) -> dict:
    """Everything, for a JSON file."""
    return {
        "operations_per_second": dict(measured.rates),
        "parts": {
            key: {
                **timing.to_json(),
                "images": measured.images[key],
                "images_per_second": measured.images_per_second(key),
                "operations": measured.operations.get(key, 0),
                "times_limit": measured.times_limit(key),
                "peak_gb": measured.memory.get(key),
            }
            for key, timing in measured.timings.items()
        },
        "ratios": ratios(measured),
    }
