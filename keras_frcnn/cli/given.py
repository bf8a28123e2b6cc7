"""``--proposals FILE``: given proposals of a command, checked before any network is made."""

from __future__ import annotations

from collections.abc import Sequence

from keras_frcnn.cli.common import existing_path
from keras_frcnn.data.dataset import Dataset
from keras_frcnn.proposals.given import GivenProposals


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


def given_record(
    texts: Sequence[str] | None, given: GivenProposals | None, name: str = "proposals"
) -> dict:
    """What a run keeps of the origin of its proposals, by which --resume knows them again.

    Args:
        name: of the one entry; there is none without the flag.
    """
    if given is None:
        return {}
    from keras_frcnn.files import digest_of, user_path

    files = [user_path(text) for text in texts]
    record = {
        "files": [str(file) for file in files],
        "method": given.method,
        "settings": dict(given.settings),
        "digest": digest_of(files),
    }
    return {name: record}
