"""Trainings that are killed or stopped end as if nothing had happened."""

import multiprocessing
import os
import signal
import sys
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module

import pytest
from helpers import PATIENCE, contents, outcome, tiny_run, wait_for

from vae_core.runs import load_run
from vae_core.runs.__main__ import main
from vae_core.runs.checkpoints import HISTORY, RUN, STATE, WEIGHTS, read_state

FORK = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def in_fresh_process():
    """Call a function in a process of one thread that has imported torch: its forks start fast."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, import_module, ("torch._dynamo",)) as pool:
        yield lambda *task: pool.submit(*task).result(5 * PATIENCE)


def only_run(checkpoints):
    (folder,) = (path for path in checkpoints.glob("*/*") if path.is_dir())
    return folder


def start(function, *arguments):
    process = FORK.Process(target=function, args=arguments)
    process.start()
    return process


def kill_after_first_epoch(folder, model):
    """Kill a training after its first epoch; return what the folder holds then."""
    process = start(tiny_run, folder, None, model)
    wait_for(lambda: list(folder.glob(f"*/*/{STATE}")))
    os.kill(process.pid, signal.SIGKILL)
    process.join(PATIENCE)
    return process.exitcode, sorted(contents(only_run(folder)))


@pytest.mark.parametrize("model", ["fc", "conv"])
def test_a_killed_training_continues_to_the_same_bits(tmp_path, in_fresh_process, model):
    code, files = in_fresh_process(kill_after_first_epoch, tmp_path / "killed", model)
    if code == -signal.SIGKILL:  # a fast machine may have finished it before
        assert RUN not in files or STATE in files or WEIGHTS in files
    killed = tiny_run(tmp_path / "killed", model=model)
    whole = tiny_run(tmp_path / "whole", model=model)
    assert outcome(killed.folder) == outcome(whole.folder)
    assert sorted(contents(killed.folder)) == [HISTORY, RUN, WEIGHTS]
    load_run(killed.folder)


def program(checkpoints, log):
    sys.stderr = log.open("w", buffering=1)
    options = "--model conv --limit 100 --max-epochs 9 --device cpu --precision float32"
    sys.exit(main([*options.split(), "--checkpoints", str(checkpoints)]))


def interrupt_program(folder):
    """Send Ctrl-C to the program in its training; return exit code, messages, finished epochs."""
    process = start(program, folder / "stopped", folder / "stopped.txt")
    wait_for(lambda: list(folder.glob(f"stopped/*/*/{HISTORY}")))
    os.kill(process.pid, signal.SIGINT)
    process.join(PATIENCE)
    stored = read_state(only_run(folder / "stopped"))
    for name in ("stopped", "whole"):
        again = start(program, folder / name, folder / f"{name}-again.txt")
        again.join(PATIENCE)
        assert again.exitcode == 0
    return process.exitcode, (folder / "stopped.txt").read_text(), len(stored.state.history)


def test_ctrl_c_stops_the_program_and_the_same_command_continues(tmp_path, in_fresh_process):
    code, message, epochs = in_fresh_process(interrupt_program, tmp_path)
    assert code == 130
    assert message.count("\n") == 1
    assert f"epoch {epochs} " in message
    assert str(only_run(tmp_path / "stopped")) in message
    assert not (tmp_path / "stopped-again.txt").read_text()
    assert outcome(only_run(tmp_path / "stopped")) == outcome(only_run(tmp_path / "whole"))
