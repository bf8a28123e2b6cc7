"""The network of a run: what it starts from, and the weights of one of its files."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from keras_frcnn.errors import UserError
from keras_frcnn.network.faster_rcnn import FasterRcnn
from keras_frcnn.network.weights import LoadReport, imagenet_file, load_layers, open_layers
from keras_frcnn.runs.config import RunConfig, checked_class_names
from keras_frcnn.runs.folder import RunFolder
from keras_frcnn.runs.provenance import check_weights
from keras_frcnn.runs.stage_table import FINAL, parts_in
from keras_frcnn.system.files import digest_of, user_path

CLASS_OUTPUTS = ("cls_score", "bbox_pred")


def load_model(
    run: RunFolder,
    weights: str = FINAL,
    *,
    precision: str | None = None,
    half_weights: bool = False,
) -> FasterRcnn:
    """The network of a run with the weights of one of its files.

    Args:
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


def weights_file(weights: Path | str, network: str) -> Path | None:
    """The file to start from.

    Args:
        weights: ``imagenet``, ``random``, a weight file or the folder of a finished run.

    Returns:
        None of random weights.

    Raises:
        UserError: there is none, or it cannot be fetched.
    """
    if weights == "random":
        return None
    if weights == "imagenet":
        return imagenet_file(network)
    path = user_path(weights)
    if path.is_dir():
        run, path = RunFolder(path), RunFolder(path).weights_file(FINAL)
        if not path.exists():
            raise UserError(f"The initial weights {weights} are a folder without {path.name}.")
        if run.config_file.is_file():
            run.check_trainable()
    elif not path.exists():
        raise UserError(f"Expected `weights` imagenet, random or a file, received {weights}.")
    return path


def load_initial_weights(model: FasterRcnn, path: Path) -> LoadReport:
    """Loads every layer that the file has; class outputs only where the classes are the same.

    The file must have every convolution of the base: one that starts at random among trained ones
    (and stays so where it is frozen) would ruin the training without a word.

    A file of this package names its classes. With other ones, even if as many, the class outputs
    keep their initial weights: a row learnt for "cat" must not serve as "dog".

    Raises:
        UserError: as :func:`keras_frcnn.network.weights.load_layers`.
    """
    with open_layers(path) as file:
        class_names = file.metadata.get("class_names")
    if class_names is not None:
        class_names = checked_class_names(class_names, f"class_names in the metadata of {path}")
    base = [layer.name for layer in model.layers("base") if layer.weights]
    if class_names is None or class_names == model.class_names:
        return load_layers(model.layers(), path, required=base)
    kept = [layer for layer in model.layers() if layer.name not in CLASS_OUTPUTS]
    report = load_layers(kept, path, required=base)
    return dataclasses.replace(
        report,
        new=(*report.new, *CLASS_OUTPUTS),
        ignored=tuple(name for name in report.ignored if name not in CLASS_OUTPUTS),
        reinitialised=(
            f"cls_score, bbox_pred: the file's classes are {', '.join(class_names)}; this run's "
            f"are {', '.join(model.class_names)}",
        ),
    )


def with_digest(config: RunConfig, path: Path | None) -> RunConfig:
    """The configuration of a new run, which knows the contents of the file that it starts from."""
    if path is None:
        return config
    return dataclasses.replace(config, initial_weights_digest=digest_of([path]))


def check_unchanged(config: RunConfig, path: Path | None) -> None:
    """Makes sure that a file is what the run began with: layers that are not trained come from it.

    Args:
        path: wherever it lies now; ``None``: random weights.

    Raises:
        UserError: its contents are others.
    """
    digest = config.initial_weights_digest
    if (path and digest_of([path])) != digest:
        raise UserError(
            f"The initial weights {path} changed since the run was started, and a training goes on "
            "with what it began with. Put the file back, or start a new run."
        )
