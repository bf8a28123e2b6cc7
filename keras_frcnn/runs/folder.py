"""A run folder: config, classes, weights, metrics. Written and read here only.

``config.json``     everything that made the run: recipe, classes, network, seed, versions, command
``metrics.jsonl``   one line every few iterations (:mod:`keras_frcnn.runs.metrics`)
``training.lock``   held by the process that trains (:mod:`keras_frcnn.system.lock`)
``weights/``        ``stage1.weights.h5`` to ``stage4.weights.h5`` (or ``joint``), ``final``
``proposals/``      ``stage1.h5``, ``stage3.h5``, or ``given.h5``
``checkpoints/``    the stage that is being trained
``features.txt``    whether stages 3 and 4 see features that were kept: ``kept`` or ``off``
``data_report.txt`` what the checks of the data found
``training_images.txt``  keys, file names and digests of the training images
    (:mod:`keras_frcnn.runs.training_images`)
``split.json``      which part each image of data without lists is in
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from keras_frcnn.data.split import read_split
from keras_frcnn.errors import UserError, reading
from keras_frcnn.runs.config import (
    FORMAT_VERSION,
    RunConfig,
    computing,
    config_of,
    differences,
    lasting,
    plain,
    versions,
)
from keras_frcnn.runs.stage_table import FINAL, INITIAL, STAGES
from keras_frcnn.system.files import (
    is_partial,
    parse_json,
    read_text_bounded,
    user_path,
    write_text,
    written_whole,
)
from keras_frcnn.system.lock import LOCK_FILE, claimed_folder

# That of a run of 10,000 classes has less.
MOST_CONFIG_BYTES = 2**24


class RunFolder:
    """Paths and files of one run.

    Args:
        path: the folder; it need not exist yet.

    Attributes:
        config_file: the configuration.
        metrics_file: one JSON object a line.
        training_images_file: keys, file names and digests of the training images.
        given_proposals_file: those of the training images, mirrored for mirrored images.
        features_file: whether features are kept, which rounds them.
        checkpoints: their folder.
    """

    def __init__(self, path: Path | str):
        self.path = user_path(path)
        self.config_file = self.path / "config.json"
        self.metrics_file = self.path / "metrics.jsonl"
        self.training_images_file = self.path / "training_images.txt"
        self.split_file = self.path / "split.json"
        self.given_proposals_file = self.path / "proposals" / "given.h5"
        self.features_file = self.path / "features.txt"
        self.checkpoints = self.path / "checkpoints"

    def weights_file(self, name: str) -> Path:
        """Weights after a stage (``"stage2"``) or of the result (``"final"``)."""
        return self.path / "weights" / f"{name}.weights.h5"

    def proposals_file(self, stage: int) -> Path:
        """Proposals made by the RPN of stage 1 or 3."""
        return self.path / "proposals" / f"stage{stage}.h5"

    def features_kept(self) -> bool | None:
        """Whether stages 3 and 4 began with features that were kept; ``None`` before them."""
        if not self.features_file.is_file():
            return None
        advice = "write 'kept' or 'off' into it, as the run began, or start a new run"
        with reading(self.features_file, "a note of one word", advice):
            word = read_text_bounded(self.features_file, 100).strip()
            return {"kept": True, "off": False}[word]

    def note_features_kept(self, kept: bool) -> None:
        """Remembers it, for those who go on with the run."""
        write_text(self.features_file, "kept\n" if kept else "off\n")

    def check_unused(
        self, advice: str = "give another --out or --name, or go on with it by --resume"
    ) -> None:
        """Makes sure that a new run can be written here.

        Args:
            advice: what to do where it cannot.

        Raises:
            UserError: the folder already holds a run or other files, is a file, or has a name that
                no file of a run could have in it.
        """
        try:
            str(self.path).encode()
        except UnicodeEncodeError as error:
            name = str(self.path).encode(errors="replace").decode()
            raise UserError(
                f"The run folder {name} has a name that is not UTF-8, which the files of a run do "
                "not take; give another --out or --name."
            ) from error
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"The run folder {self.path} is a file; {advice.split(',')[0]}.")
        # A training that was killed at once leaves its lock and half a configuration.
        if self.path.exists() and any(
            path.name != LOCK_FILE and not is_partial(path) for path in self.path.iterdir()
        ):
            raise UserError(f"The run folder {self.path} exists and is not empty; {advice}.")

    def claimed(self) -> AbstractContextManager[str | None]:
        """Makes the folder and holds it, see :func:`claimed_folder`."""
        return claimed_folder(self.path)

    def create(self, config: RunConfig, command: Sequence[str], name: str | None = None) -> None:
        """Makes the folder and its configuration.

        Args:
            command: that started it.
            name: what the folder's name is a number of, see :func:`new_run_folder`."""
        self.check_unused()
        values = {
            "format": FORMAT_VERSION,
            "versions": versions(),
            "computing": computing(),
            "command": list(command),
            **({} if name is None else {"name": name}),
            **plain(config),
        }
        # First: a folder without it is none that --resume goes on with.
        write_text(self.config_file, json.dumps(values, indent=2) + "\n")
        for folder in (self.path / "weights", self.path / "proposals"):
            folder.mkdir(exist_ok=True)

    def copy_config(self, target: Path) -> None:
        """Writes the configuration to another file too, which :func:`find_run` leads back from."""
        values = _read_json(self.config_file)
        values["run"] = str(self.path.resolve())
        write_text(target, json.dumps(values, indent=2) + "\n")

    def copy_final(self, target: Path) -> None:
        """Copies the weights of the result to another file, which may be themselves."""
        final = self.weights_file(FINAL)
        if not (target.exists() and target.samefile(final)):
            with written_whole(target) as partial:
                shutil.copyfile(final, partial)

    def needs_initial_weights(self, mode: str) -> bool:
        """Whether anything that starts from the initial weights is yet to be trained."""
        names = [each.weights for each in STAGES[mode] if INITIAL in each.starts.values()]
        return not all(self.weights_file(name).exists() for name in names)

    def read_config(self) -> RunConfig:
        """The configuration, every field checked.

        Raises:
            UserError: no run lies here, or its configuration is damaged or of a newer version.
        """
        if not self.config_file.is_file():
            raise UserError(
                f"{self.path} is not a run folder: it has no config.json. Runs are made by "
                "train_frcnn.py, under runs/ unless --out says otherwise."
            )
        return config_of(_read_json(self.config_file), str(self.config_file))

    def check_makes_proposals(self) -> None:
        """Makes sure that the run has an RPN.

        Raises:
            UserError: no run lies here, or it was trained on given proposals.
        """
        if self.read_config().mode == "fast-rcnn":
            raise UserError(
                f"{self.path} was trained on given proposals and makes none itself: test_frcnn.py "
                "and evaluate take them with --proposals FILE; it cannot be exported."
            )

    def split(self) -> dict[str, str] | None:
        """Which part each image is in; None where the data have lists.

        Raises:
            UserError: the file is damaged.
        """
        return read_split(self.split_file) if self.split_file.is_file() else None

    def check_trainable(self) -> None:
        """Makes sure that training can go on here.

        Raises:
            UserError: no run lies here, or a compressed one.
        """
        if self.read_config().compression is not None:
            raise UserError(
                f"{self.path} is a compressed run, whose training cannot go on: train the run that "
                "it was made from, and compress that again."
            )

    def resume(self, config: RunConfig) -> RunConfig:
        """Makes sure that a command has the run's own configuration; it may ask for more stages.

        Data, given proposals and initial weights may lie elsewhere than they did: config.json then
        notes their new place. Whether they are the same is known by
        :mod:`keras_frcnn.runs.training_images` and by digests.

        Args:
            config: of the command. The digest of its initial weights is not compared: whoever loads
                them does that.

        Returns:
            The run's own, with the stages and the places that the command names.

        Raises:
            UserError: naming the first field that differs, or as :meth:`check_trainable`.
        """
        self.check_trainable()
        stored = self.read_config()
        asked = dataclasses.replace(config, initial_weights_digest=stored.initial_weights_digest)
        compared = stored
        if 0 < len(stored.stages) < len(asked.stages):
            compared = dataclasses.replace(stored, stages=asked.stages)
        found = list(differences(lasting(compared), lasting(asked)))
        if found:
            name, was, now = found[0]
            raise UserError(
                f"{self.path} was started with {name} = {was!r}, this command asks for {now!r}; "
                "resume with the same command, or start a new run without --resume."
            )
        if asked != stored:
            values = {**_read_json(self.config_file), **plain(asked)}
            write_text(self.config_file, json.dumps(values, indent=2) + "\n")
        return asked

    def other_computing(self) -> str | None:
        """One sentence where the run began with other threads than there are now."""
        stored, now = _read_json(self.config_file).get("computing"), computing()
        found = next(differences(stored, now, "computing"), None)
        if found is None:
            return None
        name, was, is_now = found
        return (
            f"{self.path} was started with {name} = {was!r}, and here it is {is_now!r}: the weights"
            " will differ in their last bits from those of a run that never stopped."
        )


def _read_json(file: Path) -> Any:
    with reading(file, "the configuration of a run", "copy it again, or name another run"):
        return parse_json(read_text_bounded(file, MOST_CONFIG_BYTES))


def new_run_folder(parent: Path, name: str) -> RunFolder:
    """``parent/name``, or the next free ``parent/name-2``, ``parent/name-3``, ..."""
    number = max((number for number, _ in _numbered(parent, name)), default=0) + 1
    while (folder := parent / (name if number == 1 else f"{name}-{number}")).exists():
        number += 1
    return RunFolder(folder)


def latest_run_folder(parent: Path, name: str) -> RunFolder:
    """The run of this name with the highest number.

    Raises:
        UserError: there is none.
    """
    found = sorted(_numbered(parent, name))
    if not found:
        raise UserError(
            f"There is no run called {name!r} under {parent} to resume; start it without --resume."
        )
    return RunFolder(found[-1][1])


def find_run(config_file: Path) -> RunFolder:
    """The run of a ``config.json``: its folder, or the run that it was copied from.

    Raises:
        UserError: it is no configuration of a run.
    """
    values = _read_json(config_file)
    if not isinstance(values, dict) or not isinstance(values.get("run", ""), str):
        raise UserError(f"{config_file} is not the configuration of a run.")
    return RunFolder(values.get("run", config_file.parent))


def _numbered(parent: Path, name: str) -> list[tuple[int, Path]]:
    pattern = re.compile(re.escape(name) + r"(?:-(\d+))?$")
    if not parent.is_dir():
        return []
    matches = [(pattern.match(path.name), path) for path in parent.iterdir()]
    return [
        (int(match.group(1) or 1), path)
        for match, path in matches
        if match and (match.group(1) is None or not _is_whole_name(path))
    ]


def _is_whole_name(path: Path) -> bool:
    """Whether the number in a run's name is none of ours: ``voc-2012`` was asked for by name."""
    try:
        values = _read_json(path / "config.json")
    except UserError:
        return False
    return isinstance(values, dict) and values.get("name") == path.name
