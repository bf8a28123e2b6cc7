"""The demo calls the other commands with flags that they know, and overwrites demos only."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from keras_frcnn.cli import demo, evaluate, export, test, train
from keras_frcnn.cli.train_flags import mode_from
from keras_frcnn.data.voc import load_voc
from keras_frcnn.errors import UserError


def fake_command(command, calls):
    """Parses the flags as the command does and leaves behind what the demo reads."""

    def main(argv):
        arguments = command.build_parser().parse_args(argv)
        calls.append((command.__name__.rpartition(".")[2], arguments))
        if command is evaluate:
            trained = Path(arguments.run).name == "run"
            mean = 0.75 if trained else 0.01
            values = {"ap_11point": mean, "ap_area": mean, "ground_truth": 7, "detections": 9}
            record = {"images": 6, "map_area": mean, "per_class": {"ring": values}}
            Path(arguments.out).mkdir(exist_ok=True)
            (Path(arguments.out) / "evaluation.json").write_text(json.dumps(record))

    return main


@pytest.fixture
def calls(monkeypatch):
    recorded = []
    for command in (train, evaluate, test, export):
        monkeypatch.setattr(command, "main", fake_command(command, recorded))
    return recorded


def test_runs_every_command_on_the_generated_data(calls, tmp_path, capsys):
    out = tmp_path / "demo"
    demo.main(["--out", str(out), "--seed", "5", "--small"])
    assert [name for name, _ in calls] == [
        "train", "evaluate", "train", "evaluate", "test", "export",
    ]  # fmt: skip
    untrained, trained = calls[0][1], calls[2][1]
    assert (untrained.iterations, untrained.learning_rate) == ("1", "1e-9")
    assert mode_from(trained) == "alternating"
    for arguments in (untrained, trained):
        assert (arguments.network, arguments.weights, arguments.seed) == ("tiny", "random", 5)
        assert load_voc(arguments.path, arguments.set).sets == ("2007:trainval",)
    photos = sorted(path.stem for path in Path(calls[4][1].path).iterdir())
    test_set = load_voc(out / "devkit", "2007:test").examples
    assert photos == [example.image_id for example in test_set]
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["map_area"], summary["map_area_untrained"]) == (0.75, 0.01)
    assert "0.750 trained, 0.010 untrained" in capsys.readouterr().out


def test_a_demo_is_replaced_and_nothing_else(calls, tmp_path):
    out = tmp_path / "demo"
    demo.main(["--out", str(out), "--small"])
    (out / "pictures").mkdir()
    (out / "pictures" / "old.png").write_text("")
    (out / "notes.txt").write_text("mine")
    demo.main(["--out", str(out), "--small", "--seed", "1"])
    assert not (out / "pictures").exists()
    assert (out / "notes.txt").read_text() == "mine"

    other = tmp_path / "other"
    (other / "run").mkdir(parents=True)
    number = len(calls)
    with pytest.raises(UserError, match="did not make"):
        demo.main(["--out", str(other), "--small"])
    assert (other / "run").is_dir()
    assert len(calls) == number


def test_a_negative_seed_is_refused(tmp_path):
    with pytest.raises(UserError, match="--seed must be 0 or larger, but it is -1"):
        demo.main(["--out", str(tmp_path / "demo"), "--seed", "-1"])
    assert not (tmp_path / "demo").exists()
