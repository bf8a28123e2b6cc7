"""One training at a time in a run folder; the lock goes with its process.

Shapes and names
----------------
holder  the process that trains.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from keras_frcnn.cli.common import run_main
from keras_frcnn.errors import UserError
from keras_frcnn.runs.folder import RunFolder
from keras_frcnn.system import lock as run_lock
from keras_frcnn.system.lock import (
    CACHE_FILES,
    LOCK_FILE,
    OWN_FILES,
    OWN_FOLDERS,
    claimed_folder,
    training_lock,
)
from tests.limits import file_size_limit

ROOT = Path(__file__).parents[2]
HOLD = """
import sys, time
from keras_frcnn.system.lock import training_lock
from pathlib import Path
with training_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds ``tmp_path``."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_second_training_is_refused_until_the_first_is_dead(holder, tmp_path, how):
    with pytest.raises(UserError) as error, training_lock(tmp_path):
        pass
    text = str(error.value)
    assert f"process {holder.pid} on {socket.gethostname()} trains in it" in text
    assert "\n" not in text and "--resume" in text
    holder.send_signal(how)
    holder.wait(60)
    assert (tmp_path / LOCK_FILE).exists()  # it lies there, and is no lock
    with training_lock(tmp_path) as note:
        assert note is None
        assert str(os.getpid()) in (tmp_path / LOCK_FILE).read_text()
        with pytest.raises(UserError, match="in use"), training_lock(tmp_path):
            pass
    with training_lock(tmp_path):
        pass


def test_readers_are_not_kept_out(run_config, tmp_path):
    run = RunFolder(tmp_path / "run")
    with run.claimed():
        run.create(run_config(), [])
        assert run.read_config() == run_config()
        run.check_makes_proposals()


def test_the_command_line_refuses_at_once(holder, tmp_path, run_config, capsys):
    """Before TensorFlow starts and the data are read: what is wrong with them is not told."""
    from keras_frcnn.cli import train

    run = RunFolder(tmp_path)
    values = RunFolder(tmp_path / "other")
    values.create(run_config(), [])
    run.config_file.write_bytes(values.config_file.read_bytes())
    before = (tmp_path / LOCK_FILE).read_text()
    flags = ["-p", str(tmp_path / "other"), "--resume", "--out", str(tmp_path)]
    assert run_main(train.main, flags) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "in use" in line and f"process {holder.pid} on" in line
    assert (tmp_path / LOCK_FILE).read_text() == before


@pytest.fixture
def lock_fails(monkeypatch):
    """Lets the system refuse the lock with an error number of the given name."""

    def fail(name: str) -> None:
        number = getattr(errno, name)

        def refuse(descriptor):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(run_lock, "_lock", refuse)

    return fail


@pytest.mark.parametrize("name", ["ENOLCK", "ENOSYS", "EOPNOTSUPP", "ENOTSUP", "EINVAL"])
def test_a_file_system_without_locks_is_told(tmp_path, lock_fails, name):
    lock_fails(name)
    with training_lock(tmp_path) as note:
        assert "has no locks" in note and str(tmp_path) in note


@pytest.mark.parametrize("name", ["EAGAIN", "EWOULDBLOCK", "EACCES", "EDEADLK"])
def test_a_lock_that_another_holds_is_in_use(tmp_path, lock_fails, name):
    lock_fails(name)
    with pytest.raises(UserError, match="in use"), training_lock(tmp_path):
        pass


@pytest.mark.parametrize("name", ["EIO", "ESTALE", "EBADF"])
def test_another_error_is_not_another_training(tmp_path, lock_fails, name):
    """Network mounts give them; nobody trains there."""
    lock_fails(name)
    with pytest.raises(OSError, match=os.strerror(getattr(errno, name))) as error:
        training_lock(tmp_path).__enter__()
    assert error.value.errno == getattr(errno, name)
    assert error.value.filename == str(tmp_path / LOCK_FILE)


@pytest.mark.parametrize("name", ["EIO", "ESTALE"])
def test_a_mount_that_fails_is_one_sentence(tmp_path, lock_fails, capsys, name):
    lock_fails(name)
    assert run_main(lambda argv: training_lock(tmp_path).__enter__()) == 2
    reason = os.strerror(getattr(errno, name))
    assert capsys.readouterr().err == f"error: {tmp_path / LOCK_FILE} cannot be used: {reason}.\n"


def test_a_full_disk_is_one_sentence(tmp_path, capsys):
    """A real limit, of the system, in the place of a full disk."""
    with file_size_limit(0):
        code = run_main(lambda argv: training_lock(tmp_path).__enter__())
    assert code == 2
    reason = os.strerror(errno.EFBIG)
    assert capsys.readouterr().err == f"error: {tmp_path / LOCK_FILE} cannot be used: {reason}.\n"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_a_read_only_folder_is_one_error(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError) as error, training_lock(tmp_path):
        pass
    assert error.value.filename == str(tmp_path / LOCK_FILE)
    tmp_path.chmod(0o700)


def test_what_a_killed_training_left_half_written_goes(run_config, tmp_path):
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    (run.path / ".config.json.77.partial").write_text("{")
    with run.claimed():
        run.create(run_config(), [])  # it was killed before it had a configuration
    left = [
        run.path / "weights" / ".stage1.weights.h5.77.partial",
        run.path / ".curves.png.77.partial",
        run.path / "images.bin",
        run.path / "features.bin",
    ]
    others = [run.path / "notes.partial", run.path / ".evaluation.json.78.partial"]
    for file in (*left, *others):
        file.write_text("")
    with run.claimed():
        assert not any(file.exists() for file in left)
        assert all(file.exists() for file in others)  # an evaluation may be writing
    with pytest.raises(UserError, match="not empty"):
        run.check_unused()


OWN = [LOCK_FILE, *OWN_FILES, *CACHE_FILES, *OWN_FOLDERS, "tensorboard"]


@pytest.mark.parametrize("name", [*OWN, "checkpoints/stage4-00000050.h5"])
@pytest.mark.parametrize("kind", ["link", "dangling", "folder link", "fifo", "device"])
def test_a_run_folder_from_anywhere_lets_nothing_out(tmp_path, name, kind):
    folder, other = tmp_path / "run", tmp_path / "other"
    (folder / "checkpoints").mkdir(parents=True)
    other.mkdir()
    victim = other / "victim"
    victim.write_text("precious")
    targets = {"link": victim, "dangling": other / "new", "folder link": other}
    path = folder / name
    if name == "checkpoints":
        path.rmdir()
    os.mkfifo(path) if kind == "fifo" else path.symlink_to(targets.get(kind, "/dev/zero"))
    with pytest.raises(UserError, match=path.name), claimed_folder(folder):
        pass
    assert victim.read_text() == "precious" and list(other.iterdir()) == [victim]
    left = {path, folder / "checkpoints"}
    assert {*folder.iterdir()} <= left  # not even a lock was made


@pytest.mark.parametrize("name", [LOCK_FILE, "metrics.jsonl", "checkpoints/stage1-00000010.h5"])
def test_a_folder_in_the_place_of_a_file_is_told_at_once(tmp_path, name):
    (tmp_path / name).mkdir(parents=True)
    with pytest.raises(UserError, match=Path(name).name), claimed_folder(tmp_path):
        pass


def test_a_run_folder_may_be_reached_by_a_link(tmp_path):
    (tmp_path / "disk" / "run" / "tensorboard" / "plugins").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    with claimed_folder(tmp_path / "link" / "run") as note:
        assert note is None
    assert (tmp_path / "disk" / "run" / LOCK_FILE).is_file()
