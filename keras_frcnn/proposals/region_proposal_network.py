"""Proposals of a trained RPN, whole or with a part of it taken away (table 1 of the paper)."""

from __future__ import annotations

import dataclasses
import zlib
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from keras_frcnn.errors import UserError
from keras_frcnn.network.faster_rcnn import FasterRcnn
from keras_frcnn.network.network_input import network_input
from keras_frcnn.network.weights import load_layers
from keras_frcnn.proposals.given import ScoredBoxes, ranked
from keras_frcnn.recipes import ProposalConfig
from keras_frcnn.runs.folder import RunFolder
from keras_frcnn.runs.networks import load_model
from keras_frcnn.runs.provenance import check_weights
from keras_frcnn.runs.stage_table import FINAL
from keras_frcnn.system.files import digest_of


@dataclass(frozen=True)
class Ablation:
    """What of the RPN is left out (section 4.1, "Ablation Experiments on RPN").

    Attributes:
        nms: without it, the best N boxes by score.
        cls: without it, N boxes drawn from all, and no suppression, as there is no ranking.
        reg: without it, the anchors themselves, clipped to the image.
        seed: of the draw.
    """

    nms: bool = True
    cls: bool = True
    reg: bool = True
    seed: int = 0


WHOLE = Ablation()
# The base of stage 3 is the detector's.
_SHARED = ("stage2", "stage3")


class RegionProposalNetwork(tf.Module):
    """Proposals of one image at a time.

    Args:
        model: its base and RPN head are used.
        config: how many, the suppression, the smallest side.
        ablation: what is left out.
        about: settings to tell beside these.
    """

    def __init__(
        self,
        model: FasterRcnn,
        config: ProposalConfig,
        ablation: Ablation = WHOLE,
        about: dict | None = None,
    ):
        super().__init__(name="rpn")
        self.model = model
        self.ablation = ablation
        self.about = about or {}
        if not (ablation.cls and ablation.nms):
            # No two boxes overlap by more than 1: nothing is suppressed.
            config = dataclasses.replace(config, before_nms=config.after_nms, nms_iou=1.0)
        self.config = config

    def settings(self) -> dict:
        """What the boxes depend on."""
        return {
            **self.about,
            **dataclasses.asdict(self.config),
            **dataclasses.asdict(self.ablation),
        }

    def __call__(self, image: np.ndarray) -> ScoredBoxes:
        """Proposals of one (H, W, 3) uint8 RGB image; objectness as score, or only an order."""
        # By the pixels, not by a count: a run that was interrupted draws the same.
        seed = np.array((self.ablation.seed, zlib.crc32(image.tobytes()) >> 1), np.int32)
        boxes, scores = (values.numpy() for values in self.propose(image, seed))
        return ScoredBoxes(boxes, scores) if self.ablation.cls else ranked(boxes)

    @tf.function(
        input_signature=[tf.TensorSpec((None, None, 3), tf.uint8), tf.TensorSpec((2,), tf.int32)]
    )
    def propose(self, image: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Boxes (P, 4) in pixels of the image and scores (P,), best first."""
        inputs, frames = network_input(image[None], self.model.recipe.image)
        outputs = self.model.rpn(self.model.features(inputs))
        if not self.ablation.reg:
            outputs = outputs._replace(deltas=tf.zeros_like(outputs.deltas))
        if not self.ablation.cls:
            drawn = tf.random.stateless_uniform(tf.shape(outputs.logits)[:2], seed)
            outputs = outputs._replace(logits=tf.stack((tf.zeros_like(drawn), drawn), axis=-1))
        found = self.model.proposals(outputs, frames, self.config)
        count = found.count[0]
        return frames.to_image(found.boxes_input)[0, :count], found.scores[0, :count]


def load_rpn(run: RunFolder, stage: int | None = None) -> tuple[FasterRcnn, dict]:
    """The network of a run with the RPN of a stage, and what to tell of it.

    Args:
        run: an existing run folder.
        stage: 1 or 3; default: the last that is finished.

    Raises:
        UserError: the run has no RPN, or not of this stage yet.
    """
    config = run.read_config()
    run.check_makes_proposals()
    if config.mode == "joint":
        if stage is not None:
            raise UserError(f"{run.path} was trained in the `mode` joint, which has no stages.")
        files = [run.weights_file(FINAL)]
        model = load_model(run)
    else:
        if stage is None:
            stage = 3 if run.weights_file("stage3").exists() else 1
        files = [run.weights_file(name) for name in (("stage1",) if stage == 1 else _SHARED)]
        model = load_model(run, files[0].name.split(".")[0])
        if stage == 3:
            if not files[1].exists():
                raise UserError(f"{run.path} has no stage3 weights yet; finish it with `resume`.")
            check_weights(run, config, "stage3")
            names = [layer.name for layer in model.layers("rpn")]
            load_layers(model.layers("rpn"), files[1], reinitialise=(), required=names)
    about = {"run": str(run.path), "stage": stage, "weights": digest_of(files)}
    return model, about
