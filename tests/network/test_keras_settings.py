"""The user's own settings of Keras are for other programs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from keras_frcnn.errors import UserError
from keras_frcnn.network.faster_rcnn import FasterRcnn

ROOT = Path(__file__).parents[2]
# What a command does, up to a number that every weight, layout and type of the network is in.
NETWORK = """
import sys
from keras_frcnn.cli.common import run_main
from keras_frcnn.system.devices import quiet_tensorflow

def main(argv):
    quiet_tensorflow()
    import numpy as np
    from keras_frcnn.network.faster_rcnn import FasterRcnn
    from keras_frcnn.recipes import PAPER
    model = FasterRcnn("tiny", ("cat",), PAPER, seed=1)
    image = np.random.default_rng(0).normal(size=(1, 64, 96, 3)).astype(np.float32)
    found = model.rpn_head(model.base(image))
    print([(np.float64(part).sum().hex(), part.dtype.name, part.shape) for part in found])

raise SystemExit(run_main(main))
"""


def run(code, **environment):
    """Standard output and error of a process that has not imported Keras."""
    kept = {name: text for name, text in os.environ.items() if "KERAS" not in name}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def expected():
    out, err = run(NETWORK)
    assert "float32" in out, err
    return out


@pytest.mark.parametrize(
    ("settings", "environment"),
    [
        ({"image_data_format": "channels_first", "floatx": "float16"}, {"KERAS_BACKEND": "torch"}),
        ({"backend": "jax", "nnx_enabled": True}, {"TF_USE_LEGACY_KERAS": "1"}),
        ({"floatx": "none of them"}, {"KERAS_NNX_ENABLED": "true"}),
        ([], {}),
    ],
)
def test_a_command_gives_the_same_result(settings, environment, expected, tmp_path):
    (tmp_path / ".keras").mkdir()
    (tmp_path / ".keras" / "keras.json").write_text(json.dumps(settings))
    name, folder = ("HOME", tmp_path) if environment else ("KERAS_HOME", tmp_path / ".keras")
    assert run(NETWORK, **environment, **{name: str(folder)}) == (expected, "")


@pytest.mark.parametrize(
    ("set_to", "named"),
    [
        (lambda: keras.config.set_image_data_format("channels_first"), "image_data_format"),
        (lambda: keras.config.set_floatx("float16"), "floatx"),
        (lambda: keras.config.set_dtype_policy("mixed_float16"), "dtype_policy"),
    ],
)
def test_a_library_call_under_other_settings_is_refused(set_to, named, tiny_recipe):
    before = keras.config.image_data_format(), keras.config.floatx(), keras.config.dtype_policy()
    try:
        set_to()
        with pytest.raises(UserError, match=named):
            FasterRcnn("tiny", ("cat",), tiny_recipe)
    finally:
        keras.config.set_image_data_format(before[0])
        keras.config.set_floatx(before[1])
        keras.config.set_dtype_policy(before[2])
    FasterRcnn("tiny", ("cat",), tiny_recipe)
