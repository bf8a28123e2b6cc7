"""Figures 1 (right) and 3: pictures with detections of a score of 0.6 and above."""

from __future__ import annotations

from PIL.Image import Image

from keras_frcnn.detection.detections import Detections
from keras_frcnn.paper.kept import four_steps, rpn_proposals
from keras_frcnn.paper.sheet import Sheet, columns
from keras_frcnn.paper.systems import System, kept_detections
from keras_frcnn.paper.workshop import TEST_SETS, Absent, Workshop
from keras_frcnn.runs.folder import RunFolder
from keras_frcnn.visualize import contact_sheet

SCORE = 0.6  # figure 3
COUNTS = {"figure1": 8, "figure3": 24}
COLUMNS, CELL = 4, 256  # CELL: pixels of a picture's longer side
TITLES = {
    "figure1": "Example detections using RPN proposals (figure 1, right)",
    "figure3": "Selected examples of detections (figure 3): here the first ones, not selected",
}


def make(workshop: Workshop, name: str) -> Sheet:
    """Draws the first images of VOC 2007 test that have a detection of such a score.

    The paper selects its examples; nothing is selected here, so that misses and errors show.
    """
    network = workshop.budget.network_or("vgg16")
    remarks: list[str] = []
    pictures: list[Image] = []
    seen, about = 0, f"{network}."
    for training in ("07+12", "07") if name == "figure3" else ("07",):
        try:
            run = four_steps(workshop, network, training)
        except Absent as reason:
            remarks.append(f"Trained on {training}: {reason}.")
            continue
        seen, pictures = _pictures(workshop, run, name)
        about = f"{network} trained on {training}, score {SCORE} and above, VOC 2007 test."
        break
    figures = (f"{name}.png",) if pictures else ()
    for figure in figures:
        contact_sheet(pictures, COLUMNS, cell=CELL).save(workshop.folder / figure, optimize=True)
    return Sheet(
        name=name,
        title=TITLES[name],
        columns=columns(("images looked at", 0), ("images shown", 0)),
        rows=((seen, len(pictures)),),
        caption=f"{workshop.caption()} {about}",
        remarks=tuple(remarks),
        figures=figures,
    )


def _pictures(workshop: Workshop, run: RunFolder, name: str) -> tuple[int, list[Image]]:
    """How many images were looked at, and the pictures of those with a good detection."""
    proposals = rpn_proposals(workshop, run, TEST_SETS["07"], stage=3)
    dataset, found = kept_detections(workshop, System(run, 4, proposals, 300))  # as in table 2
    skipped = COUNTS["figure1"] if name == "figure3" else 0  # it goes on where figure 1 stops
    seen, pictures = 0, []
    for example in dataset.examples:
        seen += 1
        best = found[example.key].at_least(SCORE)
        if len(best) and skipped:
            skipped -= 1
        elif len(best):
            shown = Detections(
                best.boxes_image, best.scores, best.classes, dataset.class_names, example.pixels()
            )
            pictures.append(shown.draw())
        if len(pictures) == COUNTS[name]:
            break
    return seen, pictures
