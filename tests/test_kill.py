"""Trainings that are killed, stopped, or asked for twice end as if nothing had happened.

Run as a program, this file is the parent of the trainings: it has imported torch, so that a
training starts within milliseconds and the kills land in it rather than in imports.
"""

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import contents, outcome, tiny_dataset, tiny_run

from vae_core import training
from vae_core.checkpoints import HISTORY, RUN, STATE, load_run, read_state
from vae_core.experiment import training_code
from vae_core.models import FCVAE, ConvVAE

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
PATIENCE = 60  # seconds after which a process that should have done something is a failure


def run_folder(checkpoints):
    (folder,) = (path for path in checkpoints.glob("*/*") if path.is_dir())
    return folder


def wait_for(what, describe):
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end, f"waited in vain for {describe}"
        time.sleep(0.002)


# What the parent of the trainings does


def fork(action, log=None):
    """Run `action` in a process of its own; return its id."""
    process = os.fork()
    if process == 0:
        code = 1
        try:
            if log:
                sys.stderr = log.open("w", buffering=1)
            action()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return process


def ended(process):
    """Wait for a process; return "killed" or "finished", and refuse anything else."""
    status = os.waitpid(process, 0)[1]
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return "killed"
    assert os.WEXITSTATUS(status) == 0, "a training failed"
    return "finished"


def kill_at_random(folder, train, kills, seed):
    """Train again and again, killing at random moments; return where the kills landed."""
    began = time.perf_counter()
    assert ended(fork(lambda: train(folder / "reference"))) == "finished"
    whole = time.perf_counter() - began
    rng = np.random.default_rng(seed)
    landed = []
    run, finished = 0, True
    while len(landed) < kills or not finished:
        checkpoints = folder / f"killed-{run}"
        process = fork(lambda checkpoints=checkpoints: train(checkpoints))
        if len(landed) < kills:
            time.sleep(rng.uniform(0, whole))
            os.kill(process, signal.SIGKILL)
        finished = ended(process) == "finished"
        if not finished:
            landed.append(where_it_stands(checkpoints))
        run += finished
    return landed


def where_it_stands(checkpoints):
    folders = [path for path in checkpoints.glob("*/*") if path.is_dir()]
    if not folders:
        return "before the first write"
    if list(folders[0].glob(".*.part")):
        return "while writing"
    if not (folders[0] / HISTORY).exists():
        return "in the first epoch"
    return f"after epoch {len((folders[0] / HISTORY).read_text().splitlines()) - 1}"


def kill_at_every_write(folder, train):
    """Kill at every step of every write, with half a file written too; return the moments."""
    assert ended(fork(lambda: train(folder / "reference"))) == "finished"
    moments = []
    while True:
        checkpoints, log = folder / f"killed-{len(moments)}", folder / f"{len(moments)}.txt"
        number = len(moments)

        def killed(checkpoints=checkpoints, number=number, log=log):
            die_at(number, log)
            train(checkpoints)

        if ended(fork(killed)) == "finished":
            return moments
        moments.append(log.read_text())
        assert ended(fork(lambda checkpoints=checkpoints: train(checkpoints))) == "finished"


def die_at(number, log):
    """Have this process killed at the `number`th step of writing or removing a file."""
    steps = iter(range(1_000_000))

    def step(name, before=lambda *arguments: None):
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


def two_at_once(folder, train, first_dies):
    """Have two processes ask for one run, the second while the first is in its training."""
    checkpoints, log = folder / "shared", folder / "second.txt"

    def second():
        if not first_dies:
            training.train = None  # the first one trains; a second training would fail
        train(checkpoints)

    first = fork(lambda: train(checkpoints))
    try:
        wait_for(lambda: list(checkpoints.glob(f"*/*/{HISTORY}")), "the first epoch")
        os.kill(first, signal.SIGSTOP)
        assert not list(checkpoints.glob(f"*/*/{RUN}")), "the first process was too fast"
        other = fork(second, log)
        wait_for(lambda: log.exists() and "waiting" in log.read_text(), "the second to wait")
    except BaseException:
        os.kill(first, signal.SIGKILL)
        raise
    os.kill(first, signal.SIGKILL if first_dies else signal.SIGCONT)
    ends = [ended(first), ended(other)]
    assert ended(fork(lambda: train(folder / "reference"))) == "finished"
    return [*ends, log.read_text()]


def main(task, folder, model, *numbers):
    dataset = tiny_dataset()
    # Every training would load and hash anew what this process has at hand once and for all.
    training_code(ConvVAE)
    training_code(FCVAE)
    torch.optim.Adam(ConvVAE(2, (3, 32, 32)).parameters(), fused=True)
    epochs = 2 if model == "fc" or task == "kill_at_every_write" else 4

    def train(checkpoints):
        tiny_run(checkpoints, dataset, model, max_epochs=epochs)

    print(json.dumps(globals()[task](Path(folder), train, *map(int, numbers))))


# The tests


def driven(task, folder, model, *numbers):
    command = [sys.executable, __file__, task.__name__, folder, model, *numbers]
    done = subprocess.run(
        [str(part) for part in command],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=5 * PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def assert_all_as_the_reference(folder):
    expected = outcome(run_folder(folder / "reference"))
    others = [path for path in folder.iterdir() if path.is_dir() and path.name != "reference"]
    assert others
    for checkpoints in others:
        run = run_folder(checkpoints)
        assert outcome(run) == expected
        assert sorted(contents(run)) == [HISTORY, RUN, "weights.safetensors"]
        load_run(run)


@pytest.mark.parametrize(("model", "kills"), [("conv", 14), ("fc", 8)])
def test_killed_at_random_moments(tmp_path, model, kills, record_property):
    landed = driven(kill_at_random, tmp_path, model, kills, 7)
    assert len(landed) == kills
    assert len(set(landed)) > 1, landed
    record_property("kills", landed)
    print(landed)
    assert_all_as_the_reference(tmp_path)


def test_killed_at_every_step_of_every_write(tmp_path, record_property):
    moments = driven(kill_at_every_write, tmp_path, "conv")
    # Three steps for each file: two a epoch, three at the end; and the state's removal.
    assert len(moments) == 3 * (2 * 2 + 3) + 1, moments
    assert set(moments) >= {f"half of .{STATE}.part", f"before {RUN}", f"before the end of {STATE}"}
    record_property("kills", moments)
    assert_all_as_the_reference(tmp_path)


@pytest.mark.parametrize("first_dies", [False, True])
def test_two_at_once(tmp_path, first_dies):
    *ends, said = driven(two_at_once, tmp_path, "conv", int(first_dies))
    assert ends == ["killed" if first_dies else "finished", "finished"]
    assert said.count("waiting for it") == 1 and "Traceback" not in said
    assert_all_as_the_reference(tmp_path)


def test_the_program_is_killed_then_stopped_then_goes_on(tmp_path):
    def start(checkpoints):
        options = "--model conv --limit 200 --max-epochs 12 --device cpu --checkpoints"
        return subprocess.Popen(
            [sys.executable, "-m", "vae_core.experiment", *options.split(), str(checkpoints)],
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A shell's background jobs ignore Ctrl-C, and hand that on.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def epochs(checkpoints):
        histories = list(checkpoints.glob(f"*/*/{HISTORY}"))
        return len(histories[0].read_text().splitlines()) - 1 if histories else 0

    def after(number, process, checkpoints, sign):
        wait_for(lambda: epochs(checkpoints) >= number or process.poll() is not None, "an epoch")
        process.send_signal(sign)
        return process.communicate(timeout=PATIENCE)

    reference, stopped = tmp_path / "reference", tmp_path / "stopped"
    whole, killed = start(reference), start(stopped)
    after(2, killed, stopped, signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL and epochs(stopped) < 12

    interrupted = start(stopped)
    _, said = after(epochs(stopped) + 2, interrupted, stopped, signal.SIGINT)
    assert interrupted.returncode == 130, said
    (line,) = said.splitlines()
    kept = len(read_state(run_folder(stopped))[0].history)
    assert f"epoch {kept} is kept in {run_folder(stopped)}" in line
    assert "the same call goes on from there" in line

    last = start(stopped)
    printed, said = last.communicate(timeout=PATIENCE)
    assert last.returncode == 0 and said == ""
    assert printed.startswith(f"{run_folder(stopped)}: 12 epochs")
    assert whole.wait(PATIENCE) == 0
    assert_all_as_the_reference(tmp_path)


if __name__ == "__main__":
    main(*sys.argv[1:])
