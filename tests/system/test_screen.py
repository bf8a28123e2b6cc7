"""A screen that fails in any way ends no work."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from keras_frcnn.system.screen import Screen, lasting_screen

ROOT = Path(__file__).parents[2]
# A command that prints much by every way there is, saves a file, and prints a little more.
COMMAND = """
import logging, sys, warnings
from pathlib import Path
from rich.progress import track
from keras_frcnn.cli.common import make_console, run_main

def main(argv):
    console = make_console()
    for number in track(range(3000), "work", console=console, disable=not console.is_terminal):
        console.print(f"{number} \\u041a\\u043e\\u0442 \\u7ea2", style="yellow")
        print(number, file=sys.stderr)
    with console.status("busy"):
        print("text")
    logging.warning("a warning")
    warnings.warn("another")
    sys.stdout.flush()
    Path(argv[0]).write_text("saved")
    console.print("done")

raise SystemExit(run_main(main))
"""


def run(tmp_path, redirection, **environment):
    """The exit code, what the file holds, and what reached standard output and error."""
    files = [tmp_path / name for name in ("saved", "out", "err")]
    shell = f'"$0" -c "$1" "$2" >"{files[1]}" 2>"{files[2]}" {redirection}; exit $?'
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", shell, sys.executable, COMMAND, str(files[0])],
        cwd=ROOT,
        env={**os.environ, **environment},
        timeout=120,
    )
    return done.returncode, *(file.read_text() if file.exists() else "" for file in files)


@pytest.mark.parametrize(
    "redirection",
    [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-", ">/dev/full", "2>/dev/full", ">/dev/full 2>&1"],
)
def test_work_goes_on_without_a_screen(tmp_path, redirection):
    code, saved, _, err = run(tmp_path, redirection)
    assert (code, saved) == (0, "saved")
    assert "Traceback" not in err and "Exception ignored" not in err
    if redirection == ">/dev/full":
        assert os.strerror(errno.ENOSPC) in err.splitlines()[-1]


def test_work_goes_on_after_a_pipe_is_broken(tmp_path):
    code, saved, out, err = run(tmp_path, f"> >(head -2 > '{tmp_path / 'head'}')")
    assert (code, saved) == (0, "saved")
    assert "Traceback" not in err and "Exception ignored" not in err
    assert os.strerror(errno.EPIPE) in err.splitlines()[-1]


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1:strict", "utf-8"])
def test_letters_that_a_terminal_does_not_know(tmp_path, encoding):
    code, saved, out, err = run(tmp_path, "", PYTHONIOENCODING=encoding)
    assert (code, saved) == (0, "saved")
    assert ("红" in out) == (encoding == "utf-8")
    assert "2999 " in out and ("\\u7ea2" in out) == (encoding != "utf-8")
    assert "Traceback" not in err


class Failing(io.StringIO):
    """Takes a few texts."""

    def __init__(self, error: Exception):
        super().__init__()
        self.error = error
        self.tries = 0

    def write(self, text):
        self.tries += 1
        if self.tries > 2:
            raise self.error
        return super().write(text)


@pytest.mark.parametrize("error", [OSError(errno.EIO, "gone"), ValueError("closed")])
def test_a_stream_that_failed_is_not_tried_again(error):
    stream = Failing(error)
    screen = Screen(stream)
    for _ in range(5):
        assert screen.write("text") == 4
    screen.flush()
    assert (stream.tries, stream.getvalue()) == (3, "texttext")
    assert screen.failure is not None


def test_no_stream_at_all(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    with lasting_screen():
        print("text")
        sys.stderr.write("text")
        assert not sys.stdout.isatty() and sys.stdout.encoding
        with pytest.raises(OSError):
            sys.stdout.fileno()
    assert sys.stdout is None


def test_the_streams_come_back_as_they_were():
    before = sys.stdout, sys.stderr
    with pytest.raises(ZeroDivisionError), lasting_screen():
        raise ZeroDivisionError
    assert (sys.stdout, sys.stderr) == before
