"""``--proposals FILE``: given proposals of a command, checked before any network is made."""

from __future__ import annotations

from collections.abc import Sequence

from keras_frcnn.cli.common import existing_path
from keras_frcnn.data.dataset import Dataset
from keras_frcnn.proposals.given import GivenProposals
from keras_frcnn.runs.config import GivenSource
from keras_frcnn.system.files import digest_of, user_path


def load_given(texts: Sequence[str] | None, dataset: Dataset | None) -> GivenProposals | None:
    """The proposals in the files, of every image of the data set; ``None`` without the flag.

    Raises:
        UserError: a file cannot be read, or they lack images.
    """
    if texts is None:
        return None
    from keras_frcnn.proposals.files import read_proposals

    given = read_proposals([existing_path(text, "--proposals") for text in texts])
    if dataset is not None:
        given.check_covers(dataset.examples)
    return given


def given_source(texts: Sequence[str] | None, given: GivenProposals | None) -> GivenSource | None:
    """The origin of proposals that were given, by which --resume knows them again."""
    if given is None:
        return None
    files = [user_path(text) for text in texts]
    return GivenSource(
        files=tuple(map(str, files)),
        method=given.method,
        settings=dict(given.settings),
        digest=digest_of(files),
    )
