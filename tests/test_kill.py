"""Trainings that are killed or stopped end as if nothing had happened."""

import multiprocessing
import os
import signal
import sys
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from pathlib import Path

import pytest
from helpers import PATIENCE, contents, outcome, tiny_run, wait_for

from vae_core.checkpoints import HISTORY, RUN, STATE, WEIGHTS, load_run, read_state
from vae_core.experiment import main

FORK = multiprocessing.get_context("fork")
KILLED = -signal.SIGKILL


@pytest.fixture(scope="module")
def driven():
    """Call a function in a process of one thread that has imported all: its forks train at once."""
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, fresh, import_module, ("torch._dynamo",)) as pool:
        yield lambda *task: pool.submit(*task).result(5 * PATIENCE)


def run_folder(checkpoints):
    (folder,) = (path for path in checkpoints.glob("*/*") if path.is_dir())
    return folder


def assert_all_as_the_reference(folder):
    expected = outcome(run_folder(folder / "reference"))
    others = [path for path in folder.iterdir() if path.is_dir() and path.name != "reference"]
    assert others
    for checkpoints in others:
        run = run_folder(checkpoints)
        assert outcome(run) == expected
        assert sorted(contents(run)) == [HISTORY, RUN, WEIGHTS]
        load_run(run)


# What is called in the other process


def begun(action, *arguments):
    process = FORK.Process(target=action, args=arguments)
    process.start()
    return process


def ended(process):
    process.join(PATIENCE)
    assert process.exitcode in (0, KILLED), "a training failed"
    return process.exitcode


def kill_at_every_write(folder):
    """Kill at every step of every write, with half a file written too; return the moments.

    What goes on from there is killed as well, at another step, and goes on again.
    """
    assert ended(begun(tiny_run, folder / "reference")) == 0
    moments = []
    while True:
        checkpoints, log = folder / f"killed-{len(moments)}", folder / f"{len(moments)}.txt"
        if ended(begun(train_and_die, checkpoints, len(moments), log)) == 0:
            return moments
        moments.append(log.read_text())
        ended(begun(train_and_die, checkpoints, len(moments) % 7, log))
        assert ended(begun(tiny_run, checkpoints)) == 0


def train_and_die(checkpoints, number, log):
    """Have this process killed at the `number`th step of writing or removing a file."""
    steps = iter(range(1_000_000))

    def step(name, before=lambda: None):
        if next(steps) == number:
            before()
            log.write_text(name)
            os.kill(os.getpid(), signal.SIGKILL)

    fsync, replace, unlink = os.fsync, Path.replace, Path.unlink

    def halved(descriptor):
        name = Path(os.readlink(f"/proc/self/fd/{descriptor}")).name
        step(f"half of {name}", lambda: os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2))
        fsync(descriptor)

    def replaced(path, target):
        step(f"before {target.name}")
        replace(path, target)
        step(f"after {target.name}")

    def unlinked(path, missing_ok=False):
        if path.name == STATE:
            step(f"before the end of {path.name}")
        unlink(path, missing_ok=missing_ok)

    os.fsync, Path.replace, Path.unlink = halved, replaced, unlinked
    tiny_run(checkpoints)


def program(checkpoints, log):
    sys.stderr = log.open("w", buffering=1)
    options = "--model conv --limit 100 --max-epochs 9 --device cpu --checkpoints"
    sys.exit(main([*options.split(), str(checkpoints)]))


def stop_the_program(folder):
    """Send Ctrl-C to the program in its training, and start it again; return what it said."""
    stopped = begun(program, folder / "stopped", folder / "stopped.txt")
    wait_for(lambda: list(folder.glob(f"stopped/*/*/{HISTORY}")))
    os.kill(stopped.pid, signal.SIGINT)
    stopped.join(PATIENCE)
    kept, _ = read_state(run_folder(folder / "stopped"))
    for name in ("stopped", "reference"):
        assert ended(begun(program, folder / name, folder / f"{name}-again.txt")) == 0
    return stopped.exitcode, (folder / "stopped.txt").read_text(), len(kept.history)


# The tests


def test_killed_at_every_step_of_every_write(tmp_path, driven):
    moments = driven(kill_at_every_write, tmp_path)
    # Three steps for each file: two a epoch, three at the end; and the state's removal.
    assert len(moments) == 3 * (2 * 2 + 3) + 1, moments
    assert set(moments) >= {f"half of .{STATE}.part", f"before {RUN}", f"before the end of {STATE}"}
    assert_all_as_the_reference(tmp_path)


def test_the_program_is_stopped_and_goes_on(tmp_path, driven):
    code, said, epochs = driven(stop_the_program, tmp_path)
    kept = f"epoch {epochs} is kept in {run_folder(tmp_path / 'stopped')}"
    assert code == 130 and said == f"stopped; {kept}; the same call goes on from there\n"
    assert not (tmp_path / "stopped-again.txt").read_text()
    assert_all_as_the_reference(tmp_path)
