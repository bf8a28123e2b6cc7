"""The screen before training: one line for each thing that makes the run."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from keras_frcnn.data.dataset import Dataset
from keras_frcnn.run_config import RunConfig, versions
from keras_frcnn.runs import RunFolder
from keras_frcnn.stages import stage_name


def show_start(
    console: Console,
    config: RunConfig,
    dataset: Dataset,
    run: RunFolder,
    initial: Path | None,
    device: str,
    shares: tuple[float, float],
) -> None:
    """One screen: versions, device, recipe, data, stages, run folder."""
    from keras_frcnn.data.checks import summary

    recipe, has_rpn = config.recipe, config.mode != "fast-rcnn"
    is_random = config.initial_weights == "random"
    start = "random weights" if is_random else initial or config.initial_weights
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("versions", ", ".join(f"{name} {text}" for name, text in versions().items()))
    table.add_row("device", f"{device}; {config.precision}")
    table.add_row(
        "recipe",
        f"{recipe.name}, {config.mode}; {config.network} from {start}; "
        f"short side {recipe.image.short_side}, long side up to {recipe.image.long_side}"
        + (f"; {recipe.anchors.per_position} anchors a position" if has_rpn else ""),
    )
    counts = summary(dataset)
    kinds = counts["problems"]
    table.add_row(
        "data",
        f"{config.data.path}, {' + '.join(dataset.sets)}: {counts['images']} images "
        f"({counts['images_without_objects']} without objects), {counts['objects']} objects "
        f"({counts['difficult']} difficult, left out), "
        f"{len(dataset.class_names)} classes; mirrored images {'on' if config.flips else 'off'}",
    )
    problems = ", ".join(f"{count} x {kind}" for kind, count in kinds.items()) or "none"
    table.add_row("problems", f"{problems}; see {run.path / 'data_report.txt'}")
    given = config.data.proposals
    if given is not None:
        table.add_row("proposals", f"{given.method}: {', '.join(given.files)}")
    covering = "anchor" if has_rpn else "proposal"
    table.add_row(
        f"{covering}s" if has_rpn else "",
        f"{shares[0]:.1%} of the objects have no {covering} at IoU 0.5, {shares[1]:.1%} at 0.7 "
        f"({run.path / 'labels.png'})",
    )
    for stage, schedule in config.schedules.items():
        table.add_row(
            "Fast R-CNN" if config.mode == "fast-rcnn" else stage_name(stage),
            f"{schedule.iterations} iterations, learning rate {schedule.learning_rate:g}, a tenth "
            f"after {schedule.drop_at}",
        )
    table.add_row("run folder", str(run.path))
    console.print(table)
