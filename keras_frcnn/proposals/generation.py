"""Computing the proposals of many images: over processes, kept as it goes, in one order.

What is finished is written to ``FILE.parts`` every minute, as files of proposals themselves; the
same command goes on there after an interruption. Results do not depend on the number of processes
nor on interruptions.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from keras_frcnn.data.dataset import Example
from keras_frcnn.data.pipeline import decode_unit, in_parallel
from keras_frcnn.errors import UserError
from keras_frcnn.proposals.files import read_proposals, write_proposals
from keras_frcnn.proposals.given import FLIPPED, GivenProposals, ScoredBoxes, fit_to_image

_DECODERS = 2


class Job(NamedTuple):
    """One image in one orientation."""

    name: str
    example: Example
    flipped: bool


class Method(Protocol):
    """What makes proposals of an image."""

    name: str

    def settings(self) -> dict[str, Any]:
        """What the boxes depend on, as JSON."""

    def __call__(self, image: np.ndarray) -> ScoredBoxes:
        """Proposals of one (H, W, 3) uint8 RGB image."""


def jobs_for(examples: Sequence[Example], flips: bool) -> list[Job]:
    """All images as they are, then, with ``flips``, all images mirrored."""
    jobs = [Job(example.key, example, False) for example in examples]
    if flips:
        jobs += [Job(example.key + FLIPPED, example, True) for example in examples]
    return jobs


def compute_proposals(
    jobs: Sequence[Job],
    method: Method,
    out: Path,
    *,
    processes: int | None,
    about: dict[str, Any],
    report: Callable[[int], None],
    save_seconds: float = 60.0,
) -> tuple[GivenProposals, list[str]]:
    """Computes what ``out.parts`` does not hold yet, writes ``out``, removes the parts.

    Args:
        processes: how many run the method; ``None``: this one runs it itself.
        about: added to the method's settings in the file.
        report: called with the number of finished jobs.
        save_seconds: between parts.

    Returns:
        the proposals, and a sentence for each image that could not be read and is not in them.

    Raises:
        UserError: the parts are those of another command, a process died, or no image was read.
    """
    settings = {**method.settings(), **about}
    parts = Parts(out, method.name, settings)
    done = parts.read()
    report(len(done))
    unreadable: list[str] = []
    fresh: dict[str, ScoredBoxes] = {}
    saved = time.monotonic()
    left = [job for job in jobs if job.name not in done]
    try:
        for job, result in _results(left, method, processes, unreadable):
            example = job.example
            boxes = fit_to_image(result.boxes_image, example.height, example.width, job.name)
            fresh[job.name] = ScoredBoxes(boxes, result.scores)
            report(len(done) + len(fresh))
            if time.monotonic() - saved > save_seconds:
                parts.write(fresh)
                done.update(fresh)
                fresh, saved = {}, time.monotonic()
    except BrokenProcessPool as error:
        raise UserError(
            "A process that computed proposals was killed, most likely for want of memory; run the "
            "same command again with fewer `workers`, it goes on where it stopped."
        ) from error
    finally:
        # Whatever stopped it, a signal included: the next run goes on here.
        if fresh:
            parts.write(fresh)
            done.update(fresh)
    if not done:
        raise UserError(f"None of the {len(jobs)} images could be read; the first: {unreadable[0]}")
    in_order = {job.name: done[job.name] for job in jobs if job.name in done}
    proposals = GivenProposals(in_order, method.name, settings, str(out))
    write_proposals(out, proposals)
    parts.remove()
    return proposals, unreadable


class Parts:
    """The folder ``FILE.parts`` beside the file ``out`` that is being made by a method."""

    def __init__(self, out: Path, method: str, settings: dict[str, Any]):
        self.folder = out.with_name(out.name + ".parts")
        self.source = str(out)
        self.method, self.settings = method, settings

    def files(self) -> list[Path]:
        """The parts in the order in which they were written."""
        return sorted(self.folder.glob("[0-9]*.h5"))

    def read(self) -> dict[str, ScoredBoxes]:
        """Everything that is finished.

        Raises:
            UserError: a part cannot be read or was made with other settings.
        """
        done: dict[str, ScoredBoxes] = {}
        for file in self.files():
            part = read_proposals(file)
            if (part.method, part.settings) != (self.method, self.settings):
                both = {**part.settings, **self.settings}
                names = [n for n in both if part.settings.get(n) != self.settings.get(n)]
                what = f"other settings ({', '.join(names)})" if names else f"{part.method}"
                raise UserError(
                    f"{self.folder} holds what an interrupted command made with {what}; delete it, "
                    "or give another `out`."
                )
            done.update(part.entries)
        return done

    def write(self, entries: dict[str, ScoredBoxes]) -> None:
        """Adds a part."""
        number = len(self.files())
        part = GivenProposals(entries, self.method, self.settings, self.source)
        write_proposals(self.folder / f"{number:06d}.h5", part)

    def remove(self) -> None:
        """Removes the parts, and their folder where nothing else lies in it."""
        if not self.folder.is_dir():
            return
        for file in (*self.files(), *self.folder.glob(".*.partial")):
            file.unlink()
        if not any(self.folder.iterdir()):
            self.folder.rmdir()


def _results(
    jobs: Sequence[Job], method: Method, processes: int | None, unreadable: list[str]
) -> Iterator[tuple[Job, ScoredBoxes]]:
    """Jobs with their proposals in order; images that cannot be read are noted and left out."""

    def decode(job: Job) -> np.ndarray | str:
        try:
            return decode_unit(job)
        except UserError as error:
            return str(error)

    def readable() -> Iterator[tuple[Job, np.ndarray]]:
        decoded = in_parallel(decode, jobs, workers=_DECODERS, ahead=8)
        for job, image in zip(jobs, decoded, strict=True):
            if isinstance(image, str):
                unreadable.append(image)
            else:
                yield job, image

    if processes is None:
        yield from ((job, method(image)) for job, image in readable())
    else:
        yield from _in_processes(method, readable(), processes)


def _in_processes(
    method: Method, images: Iterable[tuple[Job, np.ndarray]], processes: int
) -> Iterator[tuple[Job, ScoredBoxes]]:
    # Not forked: this process runs threads of TensorFlow. Ctrl-C reaches all processes of a
    # terminal, and this one answers it. A function of this module would bring TensorFlow along.
    pool = ProcessPoolExecutor(
        processes,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=signal.signal,
        initargs=(signal.SIGINT, signal.SIG_IGN),
    )
    pending: deque = deque()
    try:
        for job, image in images:
            pending.append((job, pool.submit(method, image)))
            if len(pending) >= 2 * processes:
                first, future = pending.popleft()
                yield first, future.result()
        while pending:
            first, future = pending.popleft()
            yield first, future.result()
    finally:
        pool.shutdown(cancel_futures=True)
