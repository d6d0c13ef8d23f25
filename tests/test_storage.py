"""Files are written whole or not at all, also where a process is killed in the middle."""

import multiprocessing
import os
import signal
import threading
from pathlib import Path

import pytest
from helpers import PATIENCE, contents, full_disk, one_line, wait_for

from vae_core.storage import (
    atomic_open,
    atomic_write,
    check_choice,
    check_float,
    check_int,
    locked,
    print_error,
    single_line,
)

FORK = multiprocessing.get_context("fork")


def die_at(path, step):
    """Write `path`, and be killed at one step of it."""

    def kill():
        os.kill(os.getpid(), signal.SIGKILL)

    fsync, replace = os.fsync, Path.replace

    def at_fsync(descriptor):
        if step == "half written":
            os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
            kill()
        if step == "written":
            kill()
        fsync(descriptor)

    def at_replace(part, target):
        if step == "before it appears":
            kill()
        replace(part, target)
        if step == "after it appeared":
            kill()

    os.fsync, Path.replace = at_fsync, at_replace
    atomic_write(path, "new content")


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ("half written", "old"),
        ("written", "old"),
        ("before it appears", "old"),
        ("after it appeared", "new content"),
    ],
)
def test_a_killed_writer_leaves_the_old_file_or_the_new_one(tmp_path, step, expected):
    path = tmp_path / "file"
    path.write_text("old")
    writer = FORK.Process(target=die_at, args=(path, step))
    writer.start()
    writer.join(PATIENCE)
    assert writer.exitcode == -signal.SIGKILL
    assert path.read_text() == expected
    atomic_write(path, "again")  # what the killed one left is no hindrance
    assert contents(tmp_path) == {"file": b"again"}


def test_an_error_inside_the_block_leaves_the_old_file(tmp_path):
    path = tmp_path / "folder" / "file"
    atomic_write(path, b"old")
    with pytest.raises(RuntimeError), atomic_open(path) as file:
        file.write(b"new")
        raise RuntimeError
    assert contents(tmp_path) == {"folder/file": b"old"}


def test_a_full_disk_is_an_error_that_names_the_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with full_disk(10), pytest.raises(OSError, match="untouched") as error:
        atomic_write(path, b"more than ten bytes")
    assert str(path) in one_line(error)
    assert contents(tmp_path) == {"file": b"old"}


def test_one_process_has_the_lock_and_the_other_waits(tmp_path, capsys):
    path, order = tmp_path / "run", []

    def second():
        with locked(path):
            order.append("second")

    with locked(path):
        waiting = threading.Thread(target=second)
        waiting.start()
        messages = []
        wait_for(lambda: messages.append(capsys.readouterr().err) or "waiting" in "".join(messages))
        order.append("first")
    waiting.join(PATIENCE)
    assert order == ["first", "second"]


def test_an_error_becomes_one_line(capsys):
    assert single_line(ValueError("two\n  lines")) == "two lines"
    assert single_line(ValueError()) == "ValueError"
    print_error("a\udcff\nb")  # a file name that is not Unicode
    assert capsys.readouterr().err == "a\\udcff b\n"
    print_error("a\x1b[31mred.png")  # a file name that would colour the terminal
    assert capsys.readouterr().err == "a\\x1b[31mred.png\n"


@pytest.mark.parametrize(
    ("check", "name"),
    [
        (lambda: check_int("seed", -1, 0), "seed"),
        (lambda: check_int("size", 300, 8, 256), "size"),
        (lambda: check_int("n", True, 0), "n"),
        (lambda: check_float("rate", 0.0, above=0, at_most=1), "rate"),
        (lambda: check_float("share", 1.0, below=1), "share"),
        (lambda: check_float("beta", float("nan")), "beta"),
        (lambda: check_choice("colour", "red", ("blue", "green")), "colour"),
    ],
)
def test_a_check_names_what_is_wrong_in_one_line(check, name):
    with pytest.raises(ValueError, match=name) as error:
        check()
    one_line(error)


def test_valid_values_pass_the_checks():
    assert check_int("n", 3, 0) == 3
    assert check_float("x", 0) == 0.0
    assert check_float("x", 1, above=0, at_most=1) == 1.0
    assert check_choice("colour", "blue", ("blue",)) == "blue"
