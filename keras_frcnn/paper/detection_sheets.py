"""Figures 1 (right) and 3: pictures with detections of a score of 0.6 and above."""

from __future__ import annotations

from PIL.Image import Image

from keras_frcnn.data.images import read_image
from keras_frcnn.paper.kept_proposals import rpn_proposals
from keras_frcnn.paper.sheet import Column, Sheet
from keras_frcnn.paper.systems import System, kept_detections
from keras_frcnn.paper.trainings import four_steps
from keras_frcnn.paper.workshop import TEST_SETS, Absent, Workshop
from keras_frcnn.runs.folder import RunFolder
from keras_frcnn.visualize import class_colour, contact_sheet, draw_detections

SCORE = 0.6  # figure 3
# Figure 1 shows eight images with the proposals' detections, figure 3 twenty-four.
COUNTS = {"figure1": (8, 4), "figure3": (24, 4)}
CELL = 256  # pixels of a picture's longer side
TITLES = {
    "figure1": "Example detections using RPN proposals (figure 1, right)",
    "figure3": "Selected examples of detections (figure 3): here the first ones, not selected",
}


def make(workshop: Workshop, name: str) -> Sheet:
    """Draws the first images of VOC 2007 test that have a detection of such a score.

    The paper selects its examples; nothing is selected here, so that misses and errors show.
    """
    network = workshop.budget.network_or("vgg16")
    training, run, remarks = _run(workshop, network, name)
    seen, shown, figures, about = 0, 0, (), f"{network}."
    if run is not None:
        seen, pictures = _pictures(workshop, run, name)
        shown = len(pictures)
        about = f"{network} trained on {training}, score {SCORE} and above, VOC 2007 test."
        if pictures:
            path = workshop.folder / f"{name}.png"
            contact_sheet(pictures, COUNTS[name][1], cell=CELL).save(path, optimize=True)
            figures = (path.name,)
    return Sheet(
        name=name,
        title=TITLES[name],
        columns=(Column("images looked at", 0), Column("images shown", 0)),
        rows=((seen, shown),),
        caption=f"{workshop.caption()} {about}",
        remarks=remarks,
        figures=figures,
    )


def _run(
    workshop: Workshop, network: str, name: str
) -> tuple[str, RunFolder | None, tuple[str, ...]]:
    """The data trained on, the run, and what is to be said of them; figure 3 is of 07+12."""
    remarks: list[str] = []
    for training in ("07+12", "07") if name == "figure3" else ("07",):
        try:
            return training, four_steps(workshop, network, training), tuple(remarks)
        except Absent as reason:
            remarks.append(f"Trained on {training}: {reason}.")
    return training, None, tuple(remarks)


def _pictures(workshop: Workshop, run: RunFolder, name: str) -> tuple[int, list[Image]]:
    """How many images were looked at, and the pictures of those with a good detection."""
    proposals = rpn_proposals(workshop, run, TEST_SETS["07"], stage=3)
    dataset, found = kept_detections(workshop, System(run, 4, proposals, 300))  # as in table 2
    wanted, _ = COUNTS[name]
    # Figure 3 goes on where figure 1 stops.
    skipped = 0 if name == "figure1" else COUNTS["figure1"][0]
    pictures: list[Image] = []
    seen = 0
    for example in dataset.examples:
        seen += 1
        detections = found[example.key].at_least(SCORE)
        if not len(detections):
            continue
        if skipped:
            skipped -= 1
            continue
        labels = [dataset.class_names[index - 1] for index in detections.classes]
        colours = [class_colour(int(index)) for index in detections.classes]
        boxes, image = detections.boxes_image, read_image(example.path)
        pictures.append(draw_detections(image, boxes, labels, detections.scores, colours))
        if len(pictures) == wanted:
            break
    return seen, pictures
