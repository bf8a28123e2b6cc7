"""The network of a run, with the weights of one of its files."""

from __future__ import annotations

from keras_frcnn.errors import UserError
from keras_frcnn.network.faster_rcnn import FasterRcnn
from keras_frcnn.network.weights import load_layers
from keras_frcnn.runs.folder import RunFolder
from keras_frcnn.runs.provenance import check_weights
from keras_frcnn.runs.stage_table import FINAL, parts_in


def load_model(
    run: RunFolder,
    weights: str = FINAL,
    *,
    precision: str | None = None,
    half_weights: bool = False,
) -> FasterRcnn:
    """The network of a run with the weights of one of its files.

    Args:
        run: an existing run folder.
        weights: ``"final"``, or a stage such as ``"stage2"``, of which only the layers that it
            trained (and the base) are meaningful.
        precision: default: the run's.
        half_weights: see :class:`FasterRcnn`.

    Raises:
        UserError: the run is not finished that far, or its files do not fit.
    """
    config = run.read_config()
    file = run.weights_file(weights)
    if not file.exists():
        finished = sorted(path.name.split(".")[0] for path in file.parent.glob("*.weights.h5"))
        unshared = weights == FINAL and {"stage1", "stage2"} <= set(finished)
        advice = "; until then `stage` 2 can be tested and evaluated" if unshared else ""
        raise UserError(
            f"{run.path} has no {weights} weights yet"
            + (f" (finished: {', '.join(finished)})" if finished else "")
            + (
                f"; finish the training with `resume`{advice}."
                if config.compression is None
                else "; a compressed run has its result only."
            )
        )
    model = FasterRcnn(
        config.network,
        config.class_names,
        config.recipe,
        precision=config.precision if precision is None else precision,
        seed=None,
        # Compression is of the detector: stage 1, the RPN of the unshared variant, has none.
        compression=None if weights == "stage1" else config.compression,
        half_weights=half_weights,
    )
    required = [layer.name for layer in model.layers(*parts_in(weights))]
    check_weights(run, config, weights, sources=False)
    load_layers(model.layers(), file, reinitialise=(), required=required)
    return model


def result_stage(run: RunFolder) -> int:
    """The stage whose weights are the result of a run: 4, or 2 where it stopped before (unshared).

    Raises:
        UserError: no run lies here, or it was to train the RPN only.
    """
    config = run.read_config()
    if config.mode == "joint" or 4 in config.stages:
        return 4
    if 2 in config.stages:
        return 2
    raise UserError(f"{run.path} holds no detector: it was trained with `stages` 1.")
