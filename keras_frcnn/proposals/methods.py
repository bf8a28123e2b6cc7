"""Selective Search and EdgeBoxes by OpenCV with its extra modules: proposals of one image."""

from __future__ import annotations

import ctypes
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType

import numpy as np

from keras_frcnn.errors import UserError, how_to_install
from keras_frcnn.proposals.given import ScoredBoxes, ranked
from keras_frcnn.system.files import digest_of

_BLUR = 1.0
_PERCENTILE = 99.5
_SMOOTHING = 4  # radius of the filter before orientations are taken, as in OpenCV
_THINNING = 2  # pixels to either side that an edge must not fall below


def load_opencv() -> ModuleType:
    """``cv2``, on one thread: the images are what runs in parallel.

    Raises:
        UserError: it is not installed, or without its extra modules.
    """
    try:
        import cv2
    except ImportError as error:
        raise UserError(
            f"Selective Search and EdgeBoxes need OpenCV: {how_to_install('paper')}."
        ) from error
    if not hasattr(cv2, "ximgproc"):
        raise UserError(
            f"The installed OpenCV {cv2.__version__} lacks its extra modules, which Selective "
            "Search and EdgeBoxes are part of: pip uninstall opencv-python, then "
            f"{how_to_install('paper')}."
        )
    cv2.setNumThreads(1)
    return cv2


@dataclass(frozen=True)
class SelectiveSearch:
    """Selective Search (Uijlings et al., IJCV 2013) as for Fast R-CNN's data.

    Fast mode: two colour spaces, two thresholds, two ways to merge.

    The order is drawn by C's ``rand()``, which is set anew for every image: the same boxes in the
    same order, whichever process computes them. Two images must not be computed at once in one
    process.

    Attributes:
        most: proposals kept of an image; ``None``: all.
        width: to which every image is resized first (selective_search_boxes.m of R-CNN with
            ``im_width``).
        most_height: of the resized image; a higher one is made narrower, so that a strip does not
            take all memory. Ours: photographs do not come near.
        least_side: boxes below it on either side, in the resized image, are dropped (minBoxWidth).
        seed: of ``rand()``.
    """

    most: int | None = 2000
    width: int = 500
    most_height: int = 1500
    least_side: int = 20
    seed: int = 1

    name = "selective-search"

    def settings(self) -> dict:
        """What the boxes depend on."""
        return {**asdict(self), "mode": "fast", "opencv": load_opencv().__version__}

    def __call__(self, image: np.ndarray) -> ScoredBoxes:
        """Proposals of one (H, W, 3) uint8 RGB image, in Selective Search's own order."""
        cv2 = load_opencv()
        height, width = image.shape[:2]
        factor = min(self.width / width, self.most_height / height)
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        kind = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
        resized = cv2.resize(np.ascontiguousarray(image[..., ::-1]), size, interpolation=kind)
        search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
        search.setBaseImage(resized)
        search.switchToSelectiveSearchFast()
        ctypes.CDLL(None).srand(self.seed)
        found = np.asarray(search.process(), np.float64).reshape(-1, 4)  # x, y, width, height
        found = found[found[:, 2:].min(axis=1, initial=np.inf) >= self.least_side]
        _, first = np.unique(found, axis=0, return_index=True)
        x, y, box_width, box_height = found[np.sort(first)[: self.most]].T
        boxes = np.stack((y, x, y + box_height, x + box_width), axis=1)
        scale = np.array((height / size[1], width / size[0]) * 2)
        return ranked(boxes * scale)


@dataclass(frozen=True)
class EdgeBoxes:
    """EdgeBoxes (Zitnick and Dollar, ECCV 2014): boxes by the edges that lie wholly within them.

    The edge map should come from a trained structured forest, whose file nobody ships with OpenCV:
    give it with ``edge_model``. Without one the map is made of gradients, of the strongest channel,
    over a blur of 1 pixel, as a share of the image's 99.5th percentile. That is not the published
    EdgeBoxes: it takes texture for outlines.

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
        """Proposals of one (H, W, 3) uint8 RGB image, with EdgeBoxes' scores."""
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
            raise UserError(f"`edge_model` {self.edge_model} is no file.")
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
            f"`edge_model` {self.edge_model} is no structured forest that OpenCV reads: {reason}; "
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
