"""What each file of a run is made from: written in it, compared wherever it is read.

The initial weights, the data and given proposals are part of the run's identity; everything after
them names the files before it by their digests.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from keras_frcnn.errors import UserError
from keras_frcnn.network.weights import open_layers
from keras_frcnn.runs.config import RunConfig, identity
from keras_frcnn.runs.folder import RunFolder
from keras_frcnn.runs.stage_table import GIVEN, made_from
from keras_frcnn.system.files import digest_of

# Parts that are proposals, with the stage that made them; all others are weights.
_PROPOSALS = {"proposals1": 1, "proposals3": 3, GIVEN: None}


def file_of(run: RunFolder, part: str) -> Path:
    """Where a part of a run lies: ``proposals1``, ``proposals3``, ``given``, or weights."""
    if part == GIVEN:
        return run.given_proposals_file
    stage = _PROPOSALS.get(part)
    return run.weights_file(part) if stage is None else run.proposals_file(stage)


def record_of(run: RunFolder, config: RunConfig, part: str) -> dict[str, Any]:
    """What a part says of itself: its run, its name, and the files there that it is made from."""
    sources = {name: file_of(run, name) for name in made_from(config.mode).get(part, ())}
    return {
        "run": identity(config),
        "part": part,
        "made_from": {name: digest_of([file]) for name, file in sources.items() if file.is_file()},
    }


def weights_metadata(run: RunFolder, config: RunConfig, part: str) -> dict[str, Any]:
    """What a file of weights says of itself."""
    return {
        "network": config.network,
        "class_names": list(config.class_names),
        "recipe": config.recipe.name,
        **record_of(run, config, part),
    }


def check_record(
    found: Any, run: RunFolder, config: RunConfig, part: str, *, sources: bool = True
) -> None:
    """Makes sure that a file is the part of the run that its name says.

    Args:
        sources: whether what it was made from is compared, too, as far as it is there.

    Raises:
        UserError: it is of another run or another part, or was made from other files.
    """
    file = file_of(run, part)
    values = found if isinstance(found, dict) else {}
    name, digest = values.get("part"), values.get("run")
    if digest != identity(config):
        was = "another run" if digest else "no run: nothing in it says which"
        reason = f"is of {was}, expected one of the run that {run.config_file} describes"
    elif name != part:
        reason = f"is the {name!r:.40} of this run, expected its {part}"
    elif sources and (other := _other_source(values, record_of(run, config, part))) is not None:
        reason = f"was not made from the {other} that lies in {run.path} now"
    else:
        return
    raise UserError(
        f"{file} {reason}. Put back what was there, or delete it with all that was made after it "
        "and train again with --resume."
    )


def check_parts(run: RunFolder, config: RunConfig) -> None:
    """Makes sure that all weights of a run are its own and made from each other."""
    for part in made_from(config.mode):
        if part not in _PROPOSALS and file_of(run, part).exists():
            check_weights(run, config, part)


def check_weights(run: RunFolder, config: RunConfig, part: str, *, sources: bool = True) -> None:
    """:func:`check_record` of a file of weights.

    Raises:
        UserError: as :func:`check_record` and :func:`open_layers`.
    """
    with open_layers(file_of(run, part)) as opened:
        check_record(opened.metadata, run, config, part, sources=sources)


def _other_source(values: dict[str, Any], expected: dict[str, Any]) -> str | None:
    sources = values.get("made_from")
    known = sources if isinstance(sources, dict) else {}
    others = (name for name, digest in expected["made_from"].items() if known.get(name) != digest)
    return next(others, None)
