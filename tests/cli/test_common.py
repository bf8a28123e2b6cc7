"""What every command promises: one sentence for a mistake, readable help, a quiet TensorFlow."""

from __future__ import annotations

import argparse
import errno
import json
import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path

import pytest
from rich.table import Table

import keras_frcnn.__main__ as package_main
from keras_frcnn.cli import common
from keras_frcnn.errors import UserError, doing
from keras_frcnn.runs.folder import RunFolder
from keras_frcnn.training.display import TrainingDisplay

ROOT = Path(__file__).parents[2]
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
COMMANDS = (
    *("train", "test", "evaluate", "proposals", "recall"),
    *("export", "compress", "anchors", "paper", "benchmark", "demo"),
)
# Flags that have no default: they name something, or switch something on.
WITHOUT_DEFAULT = {
    *(
        "--help",
        "--path",
        "--run",
        "--saved_model",
        "--onnx",
        "--detections",
    ),
    *("--config_filename", "--network", "--out", "--no-nms", "--no-cls", "--no-reg", "--list"),
    common.TRACEBACK_FLAG,
}


def parser_of(name: str) -> argparse.ArgumentParser:
    return import_module(f"keras_frcnn.cli.{name}").build_parser()


def refusal(action, *arguments) -> str:
    with pytest.raises(UserError) as caught:
        action(*arguments)
    return str(caught.value)


# --- files -------------------------------------------------------------------------------------


def test_a_missing_path_is_named_with_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = refusal(common.existing_path, "VOCdevkti", "The data path")
    assert message == f"The data path VOCdevkti does not exist (looked from {tmp_path})."


def test_an_output_file_is_checked_before_anything_is_written(tmp_path):
    assert common.output_file(str(tmp_path / "new" / "a.hdf5"), "--f") == tmp_path / "new/a.hdf5"
    assert not (tmp_path / "new").exists()
    assert "is a folder" in refusal(common.output_file, str(tmp_path), "--f")
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refusal(common.output_file, str(tmp_path / "file/a"), "--f")


# --- errors ------------------------------------------------------------------------------------


def raising(error):
    def main(argv):
        raise error

    return main


def test_run_main_turns_mistakes_into_one_line(command, tmp_path):
    assert command(raising(UserError("No such thing."))).refused("No such thing.")
    error = PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "x"))
    assert command(raising(error)).refused(f"{tmp_path / 'x'} cannot be used: Permission denied.")
    assert command(raising(KeyboardInterrupt())).code == 130
    nameless = OSError(errno.ENOSPC, "No space left on device", "run/metrics.jsonl")
    assert command(raising(nameless)).refused("run/metrics.jsonl cannot be used: No space left")
    assert command(lambda argv: None) == type(command(lambda argv: None))(0, "", "")


def test_a_name_in_a_sentence_moves_no_cursor_and_forges_no_line(command):
    sentence = "The run a\x1b]0;x\x07\x9b31m\u202e\nerror: forged is none."
    outcome = command(raising(UserError(sentence)))
    assert outcome.refused("forged") and outcome.err.strip().isprintable()


HOME = "~nobody-of-this-name/x"


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("train", ("-p", HOME)),
        ("train", ("-p", "data", "--out", HOME)),
        ("train", ("-p", "data", "--input_weight_path", HOME)),
        ("train", ("-p", "data", "--weights", "random", "--proposals", HOME)),
        ("train", ("-p", "data", "--config_filename", HOME)),
        ("train", ("-p", "data", "--output_weight_path", HOME)),
        ("test", ("-p", HOME, "--run", "run")),
        ("test", ("-p", "data", "--run", HOME)),
        ("test", ("-p", "data", "--onnx", HOME)),
        ("test", ("-p", "data", "--saved_model", HOME)),
        ("test", ("-p", "data", "--config_filename", HOME)),
        ("test", ("-p", "data", "--config_filename", "moved.json")),
        ("evaluate", ("-p", "data", "--run", HOME)),
        ("anchors", ("-p", HOME)),
        ("anchors", ("-p", "data", "--out", HOME)),
        ("recall", ("-p", HOME, "--proposals", "p.h5")),
        ("recall", ("-p", "data", "--proposals", "p.h5", "--out", HOME)),
        ("recall", ("-p", "data", "--proposals", HOME)),
        ("export", ("--run", HOME, "--out", "model")),
        ("export", ("--run", "run", "--out", HOME)),
    ],
)
def test_the_home_of_nobody_is_one_sentence(
    name, flags, devkit, command, tmp_path, monkeypatch, run_config
):
    monkeypatch.chdir(tmp_path)
    Path("data").symlink_to(devkit)
    Path("moved.json").write_text(json.dumps({"run": HOME}))
    RunFolder("run").create(run_config(), [])
    outcome = command(import_module(f"keras_frcnn.cli.{name}").main, *flags)
    assert outcome.refused("~nobody-of-this-name"), outcome
    assert {path.name for path in tmp_path.iterdir()} == {"data", "moved.json", "run"}


@pytest.mark.parametrize("number", STOPS, ids=lambda number: number.name)
def test_a_signal_is_one_sentence_wherever_it_comes(command, number):
    before = signal.getsignal(number)
    outcome = command(lambda argv: signal.raise_signal(number))
    assert (outcome.code, outcome.err) == (128 + number, f"{number.name} received: stopped.\n")
    assert signal.getsignal(number) is before


def test_outside_of_the_main_thread_no_handler_is_set(command):
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(command, lambda argv: None).result().code == 0


@pytest.mark.parametrize(
    "error",
    [ValueError("a bug"), OSError("no file, no number"), KeyError(1), OSError(5, "number", 3)],
)
def test_what_nobody_expected_is_one_sentence_and_a_kept_traceback(error, capsys):
    assert common.run_main(raising(error), []) == (2 if error.args[0] == 5 else 1)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and str(error.args[-1]) in line
    if "traceback" in line:
        kept = Path(re.search(r"\S+keras_frcnn-\S+\.txt", line)[0])
        assert "Traceback" in kept.read_text() and kept.stat().st_mode & 0o077 == 0
        kept.unlink()


def test_the_sentence_says_what_was_being_done(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))  # nothing can be kept

    def main(argv):
        with doing("a command"), doing("drawing photo\n.jpg"):
            raise ZeroDivisionError

    assert common.run_main(main, []) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert r"drawing photo\x0a.jpg" in line.replace(r"\n", r"\x0a")
    assert "ZeroDivisionError" in line and common.TRACEBACK_FLAG in line


@pytest.mark.parametrize("kind", [UserError, ValueError])
def test_a_traceback_is_shown_where_it_is_asked_for(kind, capsys):
    seen = []

    def main(argv):
        seen.extend(argv)
        raise kind("a \x1b[31mred name\nerror: forged")

    common.run_main(main, ["-p", "x", common.TRACEBACK_FLAG])
    text = capsys.readouterr().err
    assert seen == ["-p", "x"]
    assert "Traceback (most recent call last)" in text and "\x1b" not in text
    last = text.splitlines()[-1]
    assert last.startswith("error: ") and last.count("forged") == (kind is UserError)


# --- the package's own command line ------------------------------------------------------------


def test_commands_are_listed_and_a_misspelt_one_is_suggested(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["keras_frcnn", "--help"])
    assert package_main.main() == 0
    text = capsys.readouterr().out
    assert all(name in text for name in COMMANDS)
    monkeypatch.setattr(sys, "argv", ["keras_frcnn", "evalute"])
    assert package_main.main() == 2
    assert "unknown command 'evalute'. Did you mean evaluate?" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["keras_frcnn", "evaluate", "--runn", "x", "-p", "y"])
    assert package_main.main() == 2
    assert "Did you mean --run?" in capsys.readouterr().err


# --- help --------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_the_terminal(name, columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    text = parser_of(name).format_help()
    widest = max(text.splitlines(), key=len)
    assert len(widest) <= min(columns, 100), widest
    assert "  -p, --path PATH" in text or name in ("export", "benchmark", "demo")


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "demo"])
def test_every_flag_is_in_a_group_and_tells_its_default(name):
    parser = parser_of(name)
    assert [action.option_strings for action in parser._optionals._group_actions] == [
        ["-h", "--help"],
        [common.TRACEBACK_FLAG],
    ]
    for action in parser._actions:
        assert action.help, action.dest
        if not action.option_strings:
            continue
        flag = action.option_strings[-1]
        if action.required:
            continue
        if flag not in WITHOUT_DEFAULT or (flag in ("--network", "--out") and name == "train"):
            assert re.search(r"(^|\n)default: \S", action.help), flag


def test_the_defaults_told_are_the_defaults_used():
    parser = parser_of("train")
    arguments = parser.parse_args(["-p", "data"])
    for action in parser._actions:
        told = re.search(r"default: ([\w.-]+)", action.help or "")
        value = getattr(arguments, action.dest, None)
        if told is None or value is None or isinstance(value, bool):
            continue
        shown = f"{value:g}" if isinstance(value, float) else str(value)
        assert told[1] == shown, action.dest


# --- TensorFlow --------------------------------------------------------------------------------


def python(code: str, **environment: str) -> subprocess.CompletedProcess:
    kept = {name: text for name, text in os.environ.items() if not name.startswith("TF_")}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_flags_are_understood_without_starting_tensorflow():
    names = ", ".join(f"keras_frcnn.cli.{name}" for name in COMMANDS)
    done = python(
        f"import sys, keras_frcnn.__main__, {names}\n"
        f"[sys.modules[name].build_parser().format_help() for name in '{names}'.split(', ')]\n"
        "print('tensorflow' in sys.modules)"
    )
    assert (done.stdout, done.stderr) == ("False\n", "")


@pytest.mark.parametrize("module", ["rich.console", "numpy", "tensorflow", "keras.src"])
def test_ctrl_c_during_any_import_is_one_line(module):
    done = python(
        "import signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "class Stop:\n"
        "    def find_spec(name, path=None, target=None):\n"
        f"        if name == {module!r}:\n"
        "            sys.meta_path.remove(Stop)\n"
        "            signal.raise_signal(signal.SIGINT)\n"
        "sys.meta_path.insert(0, Stop)\n"
        "sys.argv = ['frcnn', 'benchmark', '--network', 'tiny', '--gpu', '-1']\n"
        "from keras_frcnn.__main__ import main\n"
        "raise SystemExit(main())"
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "SIGINT received: stopped.\n")


def test_brackets_in_names_are_shown_as_they_are(capsys):
    common.make_console().print("photos/IMG [edited] :car: [/b].jpg", style="yellow")
    assert capsys.readouterr().out == "photos/IMG [edited] :car: [/b].jpg\n"


@pytest.mark.parametrize(
    "control", ["\x1b]0;x\x07", "\x9b31m", "\r", "\n", "\u202e", "\ud800", "\b"]
)
def test_no_name_moves_the_cursor_or_forges_a_line(control, capsys):
    name = f"dog{control}error: forged"
    console = common.make_console()
    table = Table(title=name, caption=name)
    table.add_column(name)
    table.add_row(name)
    for what in (name, table):
        console.print(what, style="yellow", soft_wrap=True)
    TrainingDisplay(console, []).say(name)
    console.rule(name)
    text = capsys.readouterr().out
    assert text.replace("\n", "").isprintable()
    assert not any(line.startswith("error: ") for line in text.splitlines())
    assert text.count("forged") == 7


def test_nothing_is_written_into_data(tmp_path, monkeypatch):
    data = tmp_path / "VOCdevkit"
    (data / "VOC2007").mkdir(parents=True)
    common.check_outside(tmp_path / "runs", data, "--out")
    common.check_outside(tmp_path / "VOCdevkit-runs", data, "--out")
    monkeypatch.chdir(data)
    for target in (data / "runs", data, Path("runs"), tmp_path / "x" / ".." / "VOCdevkit" / "a.h5"):
        with pytest.raises(UserError, match="lies in the data folder .*name a place elsewhere"):
            common.check_outside(target, data, "--out")
    (data / "boxes.txt").write_text("")
    common.check_outside(data / "runs", data / "boxes.txt", "--out")  # a list is no folder of data
