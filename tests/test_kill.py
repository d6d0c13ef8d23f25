"""Trainings that are killed, stopped, or asked for twice end as if nothing had happened."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from helpers import contents, outcome, tiny_dataset, tiny_run

from vae_core import checkpoints as files
from vae_core.checkpoints import HISTORY, RUN, STATE, WEIGHTS, load_run, read_state

PATIENCE = 60  # seconds after which a process that should have done something is a failure
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


def wait_for(what, describe):
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end, f"waited in vain for {describe}"
        time.sleep(0.002)


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


def train(checkpoints, model="conv", epochs=2):
    tiny_run(checkpoints, tiny_dataset(), model, max_epochs=epochs)


def begun(action, *arguments):
    process = FORK.Process(target=action, args=arguments)
    process.start()
    return process


def ended(process):
    process.join(PATIENCE)
    assert process.exitcode in (0, KILLED), "a training failed"
    return process.exitcode


def kill_at_random(folder, model, epochs, kills):
    """Train again and again, killing at random moments; return what files the kills left."""
    began = time.perf_counter()
    assert ended(begun(train, folder / "reference", model, epochs)) == 0
    whole = time.perf_counter() - began
    rng, landed, run, end = np.random.default_rng(7), [], 0, 0
    while len(landed) < kills or end == KILLED:
        checkpoints = folder / f"killed-{run}"
        process = begun(train, checkpoints, model, epochs)
        if len(landed) < kills:
            time.sleep(rng.uniform(0, whole))
            process.kill()
        end = ended(process)
        if end == KILLED:
            landed.append(" ".join(sorted(path.name for path in checkpoints.glob("*/*/*"))))
        run += end != KILLED
    return landed


def kill_at_every_write(folder):
    """Kill at every step of every write, with half a file written too; return the moments."""
    assert ended(begun(train, folder / "reference")) == 0
    moments = []
    while True:
        checkpoints, log = folder / f"killed-{len(moments)}", folder / f"{len(moments)}.txt"
        if ended(begun(train_and_die, checkpoints, len(moments), log)) == 0:
            return moments
        moments.append(log.read_text())
        assert ended(begun(train, checkpoints)) == 0


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
    train(checkpoints)


def two_at_once(folder, first_dies):
    """Have two processes ask for one run, the second while the first is in its training."""
    checkpoints, log = folder / "shared", folder / "second.txt"

    def second():
        sys.stderr = log.open("w", buffering=1)
        if not first_dies:
            files.write_state = None  # the first one trains; a second training would fail
        train(checkpoints, "conv", 4)

    first = begun(train, checkpoints, "conv", 4)
    try:
        wait_for(lambda: list(checkpoints.glob(f"*/*/{HISTORY}")), "the first epoch")
        os.kill(first.pid, signal.SIGSTOP)
        assert not list(checkpoints.glob(f"*/*/{RUN}")), "the first process was too fast"
        other = begun(second)
        wait_for(lambda: log.exists() and "waiting" in log.read_text(), "the second to wait")
    except BaseException:
        first.kill()
        raise
    os.kill(first.pid, signal.SIGKILL if first_dies else signal.SIGCONT)
    ends = [ended(first), ended(other)]
    assert ended(begun(train, folder / "reference", "conv", 4)) == 0
    return [*ends, log.read_text()]


# The tests


@pytest.mark.parametrize(("model", "epochs", "kills"), [("conv", 4, 14), ("fc", 2, 6)])
def test_killed_at_random_moments(tmp_path, driven, model, epochs, kills):
    landed = driven(kill_at_random, tmp_path, model, epochs, kills)
    assert len(landed) == kills and len(set(landed)) > 1, landed
    assert_all_as_the_reference(tmp_path)


def test_killed_at_every_step_of_every_write(tmp_path, driven):
    moments = driven(kill_at_every_write, tmp_path)
    # Three steps for each file: two a epoch, three at the end; and the state's removal.
    assert len(moments) == 3 * (2 * 2 + 3) + 1, moments
    assert set(moments) >= {f"half of .{STATE}.part", f"before {RUN}", f"before the end of {STATE}"}
    assert_all_as_the_reference(tmp_path)


@pytest.mark.parametrize("first_dies", [False, True])
def test_two_at_once(tmp_path, driven, first_dies):
    *ends, said = driven(two_at_once, tmp_path, first_dies)
    assert ends == [KILLED if first_dies else 0, 0]
    assert said.count("waiting for it") == 1 and "Traceback" not in said
    assert_all_as_the_reference(tmp_path)


def test_the_program_is_stopped_and_goes_on(tmp_path):
    def start(checkpoints):
        options = "--model conv --limit 200 --max-epochs 9 --device cpu --checkpoints"
        return subprocess.Popen(
            [sys.executable, "-m", "vae_core.experiment", *options.split(), str(checkpoints)],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A shell's background jobs ignore Ctrl-C, and hand that on.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    reference, stopped = start(tmp_path / "reference"), start(tmp_path / "stopped")
    wait_for(lambda: list(tmp_path.glob(f"stopped/*/*/{HISTORY}")), "an epoch")
    stopped.send_signal(signal.SIGINT)
    _, said = stopped.communicate(timeout=PATIENCE)
    folder = run_folder(tmp_path / "stopped")
    kept = f"epoch {len(read_state(folder)[0].history)} is kept in {folder}"
    assert said == f"stopped; {kept}; the same call goes on from there\n"
    assert stopped.returncode == 130

    printed, said = start(tmp_path / "stopped").communicate(timeout=PATIENCE)
    assert printed.startswith(f"{folder}: 9 epochs") and said == ""
    assert reference.wait(PATIENCE) == 0
    assert_all_as_the_reference(tmp_path)
