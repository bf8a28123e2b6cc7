"""One training of all four stages, shared by the tests that look at it.

Shapes and names
----------------
before, after  weights of :mod:`tests.training.runs` around a stage's fitting.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from keras_frcnn.runs.folder import RunFolder
from keras_frcnn.training import output, stages
from tests.training.runs import weights_of


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory, run_config, demo_dataset, trainer_of):
    """A run of all stages: its folder, what it said, and each stage's weights and units."""
    run = RunFolder(tmp_path_factory.mktemp("runs") / "whole")
    config = run_config()
    run.create(config, [])
    trainer, said = trainer_of(
        config, demo_dataset, run, feature_cache="memory", checkpoint_seconds=-1.0
    )
    before, after, seen, steps = {}, {}, {}, {}
    fit, eligible, step_of = stages.Trainer._fit, stages.Trainer.eligible, stages.step_of

    def watched(self, model, stage, *arguments):
        def kept_step(*step_arguments):
            steps[stage.number] = step_of(*step_arguments)
            return steps[stage.number]

        before[stage.number] = weights_of(model)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stages, "step_of", kept_step)
            fit(self, model, stage, *arguments)
        after[stage.number] = weights_of(model)

    def kept_units(self, stage):
        found = eligible(self, stage)
        seen[stage.number] = found.tolist()
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages.Trainer, "_fit", watched)
        patch.setattr(stages.Trainer, "eligible", kept_units)
        patch.setattr(output, "save_curves", lambda *arguments: None)
        trainer.train()
    return SimpleNamespace(
        run=run,
        config=config,
        said=said.getvalue(),
        before=before,
        after=after,
        seen=seen,
        traces={stage: step.traces for stage, step in steps.items()},
        fresh=weights_of(trainer.new_model()),
        trainer=trainer,
    )
