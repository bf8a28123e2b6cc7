"""What the terminal shows while training: a progress bar, or a plain line now and then."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

Item = TypeVar("Item")

# Seconds of an iteration of each stage in units of stage 1's, measured with VGG-16 on two CPU
# cores with cached features; only a first guess for stages that have not run yet.
RELATIVE_COST = {0: 2.5, 1: 1.0, 2: 1.9, 3: 0.15, 4: 0.7}
PLAIN_INTERVAL = 30.0

_SHORT = {
    "loss": "loss",
    "rpn_class_loss": "rpn cls",
    "rpn_box_loss": "rpn box",
    "detector_class_loss": "det cls",
    "detector_box_loss": "det box",
}


def duration(seconds: float) -> str:
    """``3:05`` or ``2:07:09``."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


class TrainingDisplay:
    """Progress of stages and passes on a rich console.

    Args:
        plan: ``(stage, iterations)`` of every stage of the run, for the time left of all.
        left_out: images that the training does without because they are bad.
    """

    def __init__(self, console: Console, plan: Sequence[tuple[int, int]], left_out: int = 0):
        self.console = console
        self.plan = list(plan)
        self.left_out = left_out
        self.seconds_per_iteration: dict[int, float] = {}
        self._last_plain = 0.0

    def say(self, text: str, style: str | None = None) -> None:
        """Prints one line as it is: brackets in the name of a file are no markup."""
        self.console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    def passes(self, items: Sequence[Item], description: str) -> Iterator[Item]:
        """Iterates with a progress bar, or with a line every half minute."""
        total = len(items)
        if self.console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(bar_width=20),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
            )
            with Progress(*columns, console=self.console) as progress:
                yield from progress.track(items, total=total, description=description)
            return
        start = last = time.monotonic()
        for done, item in enumerate(items):
            now = time.monotonic()
            if now - last > PLAIN_INTERVAL:
                last = now
                left = (now - start) / max(done, 1) * (total - done)
                self.say(f"{description}: {done}/{total}, left {duration(left)}")
            yield item
        self.say(f"{description}: {total} in {duration(time.monotonic() - start)}")

    def left_of_all(self, stage: int, left_of_stage: float, seconds: float) -> float:
        """Seconds left of this stage and those after it, by what is known of their speed."""
        self.seconds_per_iteration[stage] = seconds
        later = [entry for entry in self.plan if entry[0] > stage]
        guess = seconds / RELATIVE_COST[stage]
        return left_of_stage + sum(
            iterations * self.seconds_per_iteration.get(number, guess * RELATIVE_COST[number])
            for number, iterations in later
        )


class _StageProgress(Progress):
    """A bar with the times left, the losses below it: one line of 80 columns is too short."""

    detail = ""

    def get_renderables(self) -> Iterator[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        yield Text(self.detail)


class StageDisplay:
    """The progress of one stage of ``total`` iterations from ``first`` on; a context manager."""

    def __init__(self, display: TrainingDisplay, number: int, title: str, total: int, first: int):
        self.display = display
        self.number = number
        self.title = title
        self.total = total
        self.first = first
        self.start = time.monotonic()
        self._progress = _StageProgress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
            console=display.console,
        )
        self._task = self._progress.add_task(
            title.split(",")[0], total=total, completed=first, left=""
        )

    def __enter__(self) -> StageDisplay:
        self.display.say(f"{self.title}: {self.total} iterations", style="bold")
        if self.display.console.is_terminal:
            self._progress.start()
        return self

    def __exit__(self, *exception) -> None:
        if self.display.console.is_terminal:
            self._progress.stop()

    def update(self, record: dict) -> None:
        """Shows a metrics record."""
        done = record["iteration"]
        elapsed = time.monotonic() - self.start
        seconds = elapsed / max(done - self.first, 1)
        left_of_stage = seconds * (self.total - done)
        left_of_all = self.display.left_of_all(self.number, left_of_stage, seconds)
        left = f"left {duration(left_of_stage)}, all {duration(left_of_all)}"
        detail = "  ".join(
            f"{_SHORT[name]} {record[name]:.3f}" for name in _SHORT if name in record
        )
        if "foreground_rois" in record:
            detail += f"  fg/bg {record['foreground_rois']:.0f}/{record['background_rois']:.0f}"
        detail += f"  {record['images_per_second']:.2f} img/s  wait {100 * record['waiting']:.0f}%"
        if self.display.left_out:
            detail += f"  {self.display.left_out} bad images left out"
        if self.display.console.is_terminal:
            self._progress.detail = detail
            self._progress.update(self._task, completed=done, left=left)
            return
        now = time.monotonic()
        if done == self.total or now - self.display._last_plain > PLAIN_INTERVAL:
            self.display._last_plain = now
            self.display.say(f"{self.title} {done}/{self.total}  {detail}  {left}")
