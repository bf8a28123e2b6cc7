"""Reading a run's ``metrics.jsonl``."""

from __future__ import annotations

import numpy as np

from keras_frcnn.metrics import read_records
from keras_frcnn.runs import RunFolder

# Losses of single images jump: what is reported is a mean over the end of the training.
_SHARE = 0.2


def last_losses(run: RunFolder, stage: int) -> dict[str, float]:
    """Mean of every loss of a stage over the last fifth of its records.

    Raises:
        ValueError: the stage has no record.
        UserError: the metrics cannot be read.
    """
    records = [record for record in read_records(run.metrics_file) if record["stage"] == stage]
    if not records:
        raise ValueError(f"{run.metrics_file} has no record of stage {stage}")
    last = records[-max(1, round(_SHARE * len(records))) :]
    names = [name for name in last[0] if name.endswith("loss")]
    return {name: float(np.mean([record[name] for record in last])) for name in names}
