"""One training of all four stages, shared by the tests that look at it.

Shapes and names
----------------
before, after  weights of :mod:`tests.training.runs` around a stage's fitting.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from keras_frcnn.runs import RunFolder
from keras_frcnn.training import fitting
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
    fit, training_step = fitting.Fitting.fit, fitting.TrainingStep

    def watched(self, model, stage, schedule, *arguments, eligible, **others):
        before[stage], seen[stage] = weights_of(model), eligible.tolist()

        def kept_step(*step_arguments, **step_others):
            steps[stage] = training_step(*step_arguments, **step_others)
            return steps[stage]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fitting, "TrainingStep", kept_step)
            fit(self, model, stage, schedule, *arguments, eligible=eligible, **others)
        after[stage] = weights_of(model)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting.Fitting, "fit", watched)
        patch.setattr(fitting, "save_curves", lambda *arguments: None)
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
