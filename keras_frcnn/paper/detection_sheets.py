"""Figures 1 (right) and 3: pictures with detections of a score of 0.6 and above.

Shapes and names
----------------
sheet  pictures in a grid.
"""

from __future__ import annotations

from keras_frcnn.data.images import read_image
from keras_frcnn.paper.kept_proposals import rpn_proposals
from keras_frcnn.paper.sheet import Column, Sheet
from keras_frcnn.paper.systems import System, kept_detections
from keras_frcnn.paper.trainings import four_steps
from keras_frcnn.paper.workshop import TEST_SETS, Workshop
from keras_frcnn.visualize import class_colour, contact_sheet, draw_detections

SCORE = 0.6  # figure 3
# Figure 1 shows eight images with the proposals' detections, figure 3 twenty-four.
COUNTS = {"figure1": (8, 4), "figure3": (24, 4)}
TITLES = {
    "figure1": "Example detections using RPN proposals (figure 1, right)",
    "figure3": "Selected examples of detections (figure 3): here the first ones, not selected",
}


def make(workshop: Workshop, name: str) -> Sheet:
    """Draws the first images of VOC 2007 test that have a detection of such a score.

    The paper selects its examples; nothing is selected here, so that misses and errors show.
    """
    network = workshop.budget.network_or("vgg16")
    run = four_steps(workshop, network)
    proposals = rpn_proposals(workshop, run, TEST_SETS["07"], stage=3)
    dataset, found = kept_detections(workshop, System(run, 4, proposals, 300))  # as in table 2
    wanted, columns = COUNTS[name]
    # Figure 3 goes on where figure 1 stops.
    skipped = 0 if name == "figure1" else COUNTS["figure1"][0]
    pictures, seen = [], 0
    for example in dataset.examples:
        detections = found[example.key]
        good = detections.scores >= SCORE
        seen += 1
        if not good.any():
            continue
        if skipped:
            skipped -= 1
            continue
        classes = detections.classes[good]
        labels = [dataset.class_names[index - 1] for index in classes]
        colours = [class_colour(int(index)) for index in classes]
        boxes, scores = detections.boxes_image[good], detections.scores[good]
        image = read_image(example.path)
        pictures.append(draw_detections(image, boxes, labels, scores, colours))
        if len(pictures) == wanted:
            break
    figures = ()
    if pictures:
        path = workshop.folder / f"{name}.jpg"
        contact_sheet(pictures, columns).save(path, quality=88)
        figures = (path.name,)
    return Sheet(
        name=name,
        title=TITLES[name],
        columns=(Column("images looked at", 0), Column("images shown", 0)),
        rows=((seen, len(pictures)),),
        caption=f"{workshop.caption()} {network}, score {SCORE} and above, VOC 2007 test.",
        figures=figures,
    )
