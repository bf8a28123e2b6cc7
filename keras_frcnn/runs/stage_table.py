"""What each stage of a training trains, starts from, reads and writes (section 3.2 of the paper).

1. RPN from ImageNet; its proposals.  2. Fast R-CNN from ImageNet again, on those proposals.
3. A new RPN head on the detector's convolutions, which stay as they are; its proposals.
4. The detector's head on the same convolutions and the new proposals.

Joint training is one stage with the number 0; Fast R-CNN alone is stage 2 on proposals that were
given.

Shapes and names
----------------
part    of the network: ``base``, ``rpn`` or ``head`` (the detector above RoI pooling).
source  where a part comes from: :data:`INITIAL`, :data:`NEW`, or the name of weights of the run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

INITIAL = "initial"
NEW = "new"
FINAL = "final"
GIVEN = "given"


@dataclass(frozen=True)
class Stage:
    """One stage of a mode.

    Attributes:
        number: 1 to 4; 0 for joint training.
        title: what stands over its losses.
        weights: name of the weights that it writes, those of ``trains``.
        trains: the parts that it changes.
        starts: the source of every part that it needs.
        reads: the proposals that it is trained on, a part of the run; ``None``: it makes its own.
        makes: the proposals of its RPN, which a later stage reads.
    """

    number: int
    title: str
    weights: str
    trains: tuple[str, ...]
    starts: Mapping[str, str]
    reads: str | None = None
    makes: str | None = None

    @property
    def is_shared(self) -> bool:
        """Whether the base stays as it is, so that its features can be kept."""
        return "base" not in self.trains

    @property
    def result(self) -> dict[str, str]:
        """The source of every part when the stage is finished."""
        return {
            part: self.weights if part in self.trains else source
            for part, source in self.starts.items()
        }


_ALL = ("base", "rpn", "head")
_NEW_RPN = {"base": INITIAL, "rpn": INITIAL}
_NEW_DETECTOR = {"base": INITIAL, "head": INITIAL}
_RPN_AGAIN = {"base": "stage2", "rpn": NEW}
_DETECTOR_AGAIN = {"base": "stage2", "head": "stage2"}
_TITLE_3 = "stage 3/4, RPN on shared convolutions"
_TITLE_4 = "stage 4/4, Fast R-CNN on shared convolutions"
# By mode, in the order in which they are trained.
STAGES: dict[str, tuple[Stage, ...]] = {
    "alternating": (
        Stage(1, "stage 1/4, RPN", "stage1", ("base", "rpn"), _NEW_RPN, makes="proposals1"),
        Stage(2, "stage 2/4, Fast R-CNN", "stage2", ("base", "head"), _NEW_DETECTOR, "proposals1"),
        Stage(3, _TITLE_3, "stage3", ("rpn",), _RPN_AGAIN, makes="proposals3"),
        Stage(4, _TITLE_4, "stage4", ("head",), _DETECTOR_AGAIN, "proposals3"),
    ),
    "joint": (Stage(0, "joint training", FINAL, _ALL, dict.fromkeys(_ALL, INITIAL)),),
    "fast-rcnn": (
        Stage(2, "Fast R-CNN on given proposals", "stage2", ("base", "head"), _NEW_DETECTOR, GIVEN),
    ),
}
# What the network of the four stages is put together from.
FINAL_SOURCES = {"base": "stage2", "rpn": "stage3", "head": "stage4"}


def stage_name(number: int) -> str:
    """What a stage is called in messages: 0 is joint training."""
    return f"stage {number}" if number else "joint training"


def stage_title(number: int, mode: str) -> str:
    """What stands over the losses of a stage."""
    titles = {stage.number: stage.title for stage in STAGES[mode]}
    return titles.get(number, stage_name(number))


def planned(mode: str, numbers: Sequence[int]) -> tuple[Stage, ...]:
    """The stages of a run: of the four those that were asked for."""
    return tuple(stage for stage in STAGES[mode] if mode == "joint" or stage.number in numbers)


def reader_of(stage: Stage, plan: Sequence[Stage]) -> Stage | None:
    """The stage of a plan that is trained on the proposals of another one's RPN."""
    readers = (later for later in plan if later.reads == stage.makes)
    return next(readers, None) if stage.makes else None


def parts_in(weights: str) -> tuple[str, ...]:
    """The parts that a file of weights has."""
    trained = {stage.weights: stage.trains for stage in STAGES["alternating"]}
    return trained.get(weights, _ALL)


def made_from(mode: str) -> dict[str, tuple[str, ...]]:
    """Of every file of a mode the files of the run that it is made from."""
    found: dict[str, tuple[str, ...]] = {}
    for stage in STAGES[mode]:
        if stage.reads == GIVEN:
            found[GIVEN] = ()
        found[stage.weights] = _files(*stage.starts.values(), stage.reads)
        if stage.makes:
            found[stage.makes] = _files(*stage.result.values())
    if mode == "alternating":
        found[FINAL] = _files(*FINAL_SOURCES.values())
    return found


def _files(*sources: str | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(s for s in sources if s not in (INITIAL, NEW, None)))
