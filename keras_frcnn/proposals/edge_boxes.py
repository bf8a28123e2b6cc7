"""EdgeBoxes (Zitnick and Dollar, ECCV 2014) by OpenCV.

Its edge map should come from a trained structured forest, whose file nobody ships with OpenCV: give
it with ``edge_model``. Without one the map is made of gradients, of the strongest channel, over a
blur of 1 pixel, as a share of the image's 99.5th percentile. That is not the published EdgeBoxes:
it takes texture for outlines.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from keras_frcnn.errors import UserError
from keras_frcnn.files import digest_of
from keras_frcnn.proposals.given import ScoredBoxes
from keras_frcnn.proposals.opencv import load_opencv

_BLUR = 1.0
_PERCENTILE = 99.5
_SMOOTHING = 4  # radius of the filter before orientations are taken, as in OpenCV
_THINNING = 2  # pixels to either side that an edge must not fall below


@dataclass(frozen=True)
class EdgeBoxes:
    """Boxes by the edges that lie wholly within them.

    Attributes:
        most: proposals kept of an image; ``None``: up to OpenCV's 10000.
        alpha: step of the windows; 0.65 and the next are for an IoU of 0.7 (edgeBoxes.m).
        beta: IoU of the suppression.
        edge_model: file of a structured forest for ``createStructuredEdgeDetection``.
    """

    most: int | None = 2000
    alpha: float = 0.65
    beta: float = 0.75
    edge_model: str | None = None

    name = "edge-boxes"

    def settings(self) -> dict:
        """What the boxes depend on.

        Raises:
            UserError: the model cannot be used.
        """
        values = {**asdict(self), "opencv": load_opencv().__version__}
        if self.edge_model is None:
            return {**values, "edges": f"gradient, blur {_BLUR:g}, percentile {_PERCENTILE:g}"}
        self._detector()
        digest = digest_of([Path(self.edge_model)])
        return {**values, "edges": "structured forest", "edge_model": digest}

    def __call__(self, image: np.ndarray) -> ScoredBoxes:
        """Proposals of one (H, W, 3) uint8 RGB image, with EdgeBoxes' scores.

        Raises:
            UserError: OpenCV is not there, or the model cannot be used.
        """
        cv2 = load_opencv()
        if self.edge_model is None:
            edges = gradient_edges(image)
            orientation = edge_orientation(edges)
            edges = thinned(edges, orientation)
        else:
            detector = self._detector()
            edges = detector.detectEdges(image.astype(np.float32) / 255)
            orientation = detector.computeOrientation(edges)
            edges = detector.edgesNms(edges, orientation)
        most = 10_000 if self.most is None else self.most
        finder = cv2.ximgproc.createEdgeBoxes(alpha=self.alpha, beta=self.beta, maxBoxes=most)
        found, scores = finder.getBoundingBoxes(edges, orientation)
        x, y, width, height = np.asarray(found, np.float32).reshape(-1, 4).T
        boxes = np.stack((y, x, y + height, x + width), axis=1)
        scores = np.asarray(scores, np.float32).ravel()[: len(boxes)]  # one is there without boxes
        order = np.argsort(-scores, kind="stable")[:most]
        return ScoredBoxes(boxes[order], scores[order])

    def _detector(self):
        cv2 = load_opencv()
        if not Path(self.edge_model).is_file():
            raise UserError(f"--edge_model {self.edge_model} is no file.")
        reason = "it has no nodes childs and thresholds"
        try:
            # Without them OpenCV divides by their number and takes the whole process along.
            content = cv2.FileStorage(self.edge_model, cv2.FILE_STORAGE_READ)
            nodes = [content.getNode(name) for name in ("options", "childs", "thresholds")]
            trees = nodes[0].getNode("numberOfTrees")
            if not any(node.empty() for node in (*nodes, trees)) and trees.real() >= 1:
                return cv2.ximgproc.createStructuredEdgeDetection(self.edge_model)
        except (cv2.error, SystemError) as error:
            reason = str(error).strip().splitlines()[-1]
        raise UserError(
            f"--edge_model {self.edge_model} is no structured forest that OpenCV reads: {reason}; "
            "such files are usually called model.yml.gz."
        )


def gradient_edges(image: np.ndarray) -> np.ndarray:
    """(H, W) float32 edges in [0, 1] of an (H, W, 3) uint8 image."""
    cv2 = load_opencv()
    smooth = cv2.GaussianBlur(image.astype(np.float32), (0, 0), _BLUR)
    along_x = cv2.Scharr(smooth, cv2.CV_32F, 1, 0)
    along_y = cv2.Scharr(smooth, cv2.CV_32F, 0, 1)
    strength = np.hypot(along_x, along_y).max(axis=-1)
    strongest = np.percentile(strength, _PERCENTILE)
    if strongest < 1:  # a step by one grey level has 16; below is rounding
        return np.zeros_like(strength)
    return np.minimum(strength / np.float32(strongest), 1)


def edge_orientation(edges: np.ndarray) -> np.ndarray:
    """(H, W) normals of the edges in [0, pi), from second derivatives as OpenCV takes them."""
    cv2 = load_opencv()
    size = 2 * _SMOOTHING + 1
    ramp = np.minimum(np.arange(1, size + 1), np.arange(size, 0, -1)).astype(np.float32)
    ramp /= ramp.sum()
    smooth = cv2.sepFilter2D(edges, cv2.CV_32F, ramp, ramp, borderType=cv2.BORDER_REFLECT)
    xx, xy, yy = (cv2.Sobel(smooth, cv2.CV_32F, *order) for order in ((2, 0), (1, 1), (0, 2)))
    # Where xy is 0 OpenCV takes every normal for a horizontal one.
    sign = np.where(xy > 0, np.float32(-1), np.float32(1))
    return np.mod(np.arctan(yy * sign / (xx + np.float32(1e-5))), np.float32(np.pi))


def thinned(edges: np.ndarray, orientation: np.ndarray) -> np.ndarray:
    """(H, W) edges, 0 wherever the edge is stronger a step or two along its normal."""
    cv2 = load_opencv()
    y, x = np.indices(edges.shape, np.float32)
    strongest = np.ones(edges.shape, bool)
    for step in range(-_THINNING, _THINNING + 1):
        if step:
            there = (x + step * np.cos(orientation), y + step * np.sin(orientation))
            neighbour = cv2.remap(edges, *there, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            strongest &= edges >= neighbour
    return np.where(strongest, edges, np.float32(0))
