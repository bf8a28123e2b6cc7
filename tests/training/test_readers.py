"""Two processes test from a run folder while a third trains in it.

Shapes and names
----------------
round  one start of ``test_frcnn.py``, from reading the configuration to the written detections.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from keras_frcnn.demo.devkit import write_demo_devkit
from keras_frcnn.runs.folder import RunFolder

ROOT = Path(__file__).parents[2]
FLAGS = (
    *("--network", "tiny", "--weights", "random", "--short_side", "48", "--long_side", "80"),
    *("--anchor_scales", "1,2", "--anchor_ratios", "1", "--min_size", "4", "--gpu", "-1"),
    *("--iterations", "20,20,40,40", "--checkpoint_minutes", "0.0005"),
)
# Tests and reads the metrics until a file tells that the training is over, then once more.
READER = """
import json, sys
from pathlib import Path
from keras_frcnn.cli import test
from keras_frcnn.cli.common import run_main
from keras_frcnn.runs.metrics import read_records
from keras_frcnn.plots import save_curves
run, photos, out, over = map(Path, sys.argv[1:])
rounds, records, last = 0, 0, False
while not last:
    last = over.exists()
    flags = ["-p", str(photos), "--run", str(run), "--out", str(out), "--stage", "2"]
    code = run_main(test.main, flags)
    assert code == 0, code
    for line in (run / "metrics.jsonl").read_text().splitlines():
        json.loads(line)  # plainly, as anybody would
    found = len(read_records(run / "metrics.jsonl"))
    assert found >= records
    save_curves(run / "metrics.jsonl", out / "curves.png")
    assert json.loads((out / "detections.json").read_text()) is not None
    rounds, records = rounds + 1, found
    if rounds == 1:
        print("ready", flush=True)
print("rounds", rounds, "records", records, flush=True)
"""


@pytest.mark.slow
def test_two_test_while_a_third_trains(tmp_path):
    devkit, run, over = tmp_path / "VOCdevkit", RunFolder(tmp_path / "run"), tmp_path / "over"
    write_demo_devkit(devkit, seed=3, train_images=4, test_images=1, size=(200, 220))
    photos = devkit / "VOC2007" / "JPEGImages"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    train = [sys.executable, "train_frcnn.py", "-p", str(devkit), "--out", str(run.path), *FLAGS]
    # Stage 2 can be tested; then the other stages are trained on.
    subprocess.run([*train, "--stages", "1,2"], cwd=ROOT, check=True, env=environment)
    readers = [
        subprocess.Popen(
            [sys.executable, "-c", READER, str(run.path), str(photos), str(tmp_path / name), over],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in ("one", "two")
    ]
    for reader in readers:
        lines = iter(reader.stdout.readline, "")
        assert "ready\n" in lines, reader.stderr.read()
    subprocess.run([*train, "--resume"], cwd=ROOT, check=True, env=environment)
    over.touch()
    for reader in readers:
        out, errors = reader.communicate()
        assert reader.returncode == 0, errors
        word, rounds, _, records = out.splitlines()[-1].split()
        assert word == "rounds" and int(rounds) >= 3, out
        assert int(records) == 6  # 20, 20, 20 and 40, 20 and 40
    assert json.loads((tmp_path / "one" / "detections.json").read_text()) == json.loads(
        (tmp_path / "two" / "detections.json").read_text()
    )
