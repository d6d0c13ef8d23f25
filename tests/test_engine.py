"""Runs are trained by real processes; whatever dies, the results are those of one process."""

import io
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from unittest.mock import Mock

import psutil
import pytest
from distributed import Client
from helpers import PATIENCE, contents, outcome, wait_for
from rich.console import Console

from vae_core.runs import train_or_load
from vae_core.runs.checkpoints import HISTORY
from vae_core.storage import PROJECT
from vae_study import cluster
from vae_study.engine import CODE, find_problem, run_all
from vae_study.progress import ProgressDisplay
from vae_study.settings import Settings
from vae_study.tasks import Task

EPOCHS = 12
SMALL = {"params": "plane", "dataset": "shapes", "limit": 64}
OPTIONS = {"max_epochs": EPOCHS, "precision": "float32"}
MODELS, SEEDS = ("conv", "ae"), (0, 1)
TASKS = [Task(model, seed=seed, options=OPTIONS, **SMALL) for model in MODELS for seed in SEEDS]


class Deadly(Task):
    """A run that kills every worker."""

    @property
    def arguments(self):
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGKILL)


def histories(checkpoints):
    """The lines of each history, whose last value is the duration of the epoch."""
    return {
        path.parent.name: path.read_text().splitlines()
        for path in checkpoints.glob(f"*/*/{HISTORY}")
    }


def in_training(checkpoints):
    """Whether a run has finished an epoch, but not the last one."""
    return any(1 < len(lines) <= EPOCHS for lines in histories(checkpoints).values())


def assert_no_epoch_was_repeated(checkpoints, before):
    """Check that all epochs since `histories` were new, by the durations of the others."""
    after = histories(checkpoints)
    for name, lines in before.items():
        assert after[name][: len(lines)] == lines


def results(checkpoints):
    return {path.parent.name: outcome(path.parent) for path in checkpoints.glob(f"*/*/{HISTORY}")}


def workers(driver):
    """The worker processes of a driver: those that its fork server has forked."""
    processes = psutil.Process(driver).children(recursive=True)
    return [process for process in processes if process.ppid() != driver]


def all_ended(processes):
    return all(
        not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
        for process in processes
    )


def quiet_console():
    return Console(file=io.StringIO(), width=200)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The results of one process with one thread."""
    checkpoints = tmp_path_factory.mktemp("reference")
    for task in TASKS:
        train_or_load(**task.arguments, checkpoints=checkpoints)
    return results(checkpoints)


@contextmanager
def program(*command, output=subprocess.DEVNULL, **environment):
    command = [sys.executable, *map(str, command)]
    environment = os.environ | {name: str(value) for name, value in environment.items()}
    options = {"stdout": output, "stderr": subprocess.STDOUT, "cwd": PROJECT, "text": True}
    with (
        subprocess.Popen(command, env=environment, **options) as process,
        ExitStack() as stack,
    ):
        stack.callback(process.kill)
        yield process


def test_killed_workers_a_deadly_run_and_two_that_fail(tmp_path, reference):
    diverging = Task("conv", seed=0, options={"beta": 1e300}, **SMALL)
    absent = Task("conv", "plane", str(tmp_path / "nothing"), 0)
    tasks = [*TASKS, diverging, absent, Deadly("conv", seed=0, **SMALL)]
    before = {}

    def kill_workers():
        wait_for(lambda: in_training(tmp_path))
        before.update(histories(tmp_path))
        for process in workers(os.getpid()):
            process.kill()

    console = quiet_console()
    with ThreadPoolExecutor() as pool:
        killing = pool.submit(kill_workers)
        outcomes = run_all(tasks, Settings(checkpoints=tmp_path, workers=2), console)
    killing.result()
    assert [outcome.task for outcome in outcomes] == tasks
    *trained, diverged, missing, deadly = outcomes
    for good in trained:
        assert good.error is None and good.row["epochs"] == EPOCHS and good.row["threads"] == "1"
    assert diverged.row is None and "infinite" in diverged.error
    assert missing.row is None and str(tmp_path / "nothing") in missing.error
    assert deadly.row is None and "workers died" in deadly.error
    assert {name: run for name, run in results(tmp_path).items() if name in reference} == reference
    assert_no_epoch_was_repeated(tmp_path, before)
    printed = console.file.getvalue()
    assert "is gone" in printed and "Traceback" not in printed
    assert f"[{len(tasks)}/{len(tasks)}]" in printed


def test_ctrl_c_and_a_killed_driver(tmp_path, reference, monkeypatch):
    checkpoints, processes = tmp_path / "runs", []

    def press_ctrl_c():
        wait_for(lambda: in_training(checkpoints))
        processes.extend(workers(os.getpid()))
        for process in [*processes, psutil.Process()]:  # as a terminal does with a whole group
            process.send_signal(signal.SIGINT)

    with ThreadPoolExecutor() as pool:
        pressing = pool.submit(press_ctrl_c)
        with pytest.raises(KeyboardInterrupt):
            run_all(TASKS, Settings(checkpoints=checkpoints, workers=2), quiet_console())
    pressing.result()
    assert len(processes) == 2 and all_ended(processes)
    after_ctrl_c = histories(checkpoints)

    environment = {
        "VAE_GRID": f"model={','.join(MODELS)} seed={','.join(map(str, SEEDS))} params=plane",
        "VAE_MAX_EPOCHS": EPOCHS,
        "VAE_PRECISION": "float32",
        "VAE_LIMIT": 64,
        "VAE_WORKERS": 2,
        "VAE_CHECKPOINTS": checkpoints,
        "VAE_REPORT": tmp_path / "report",
    }
    command = ("-m", "vae_study", "sweep")
    with program(*command, output=subprocess.PIPE, **environment) as driver:
        wait_for(lambda: histories(checkpoints) != after_ctrl_c)
        processes = workers(driver.pid)
        driver.kill()
        wait_for(lambda: all_ended(processes))
        assert len(processes) == 2 and "Traceback" not in driver.communicate(timeout=PATIENCE)[0]
    assert_no_epoch_was_repeated(checkpoints, after_ctrl_c)
    after_kill = histories(checkpoints)

    # What is left is trained where sockets, and so other processes, are not permitted.
    no_sockets = Mock(side_effect=OSError("not permitted"))
    monkeypatch.setattr(cluster.socket, "create_server", no_sockets)
    console, settings = quiet_console(), Settings(checkpoints=checkpoints)
    assert all(outcome.row for outcome in run_all(TASKS, settings, console))
    assert "not permitted" in console.file.getvalue()
    assert results(checkpoints) == reference
    assert_no_epoch_was_repeated(checkpoints, after_kill)

    files = contents(checkpoints)
    console = quiet_console()
    assert all(outcome.row for outcome in run_all(TASKS, settings, console))
    assert console.file.getvalue().count("already trained") == len(TASKS)
    assert contents(checkpoints) == files and run_all([], settings) == []


def free_address():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"tcp://127.0.0.1:{server.getsockname()[1]}"


def test_an_existing_cluster(tmp_path, reference):
    address, checkpoints = free_address(), tmp_path / "runs"
    settings, console = Settings(checkpoints=checkpoints, scheduler=address), quiet_console()
    blind = tmp_path / "blind.py"  # as a worker on a machine with another folder of this name
    exists = "lambda path: '.driver' not in str(path) and genericpath.exists(path)"
    blind.write_text(f"import genericpath, os\nos.path.exists = {exists}\n")
    options = ["--nthreads", 1, "--no-nanny", "--local-directory", tmp_path]
    worker = partial(program, "-m", "dask", "worker", address, *options)
    with (
        ThreadPoolExecutor() as pool,
        program("-m", "dask", "scheduler", "--host", address, "--no-dashboard") as scheduler,
        worker("--preload", blind),
    ):
        with Client(address, timeout=PATIENCE) as client:
            client.wait_for_workers(1, PATIENCE)
        running = pool.submit(run_all, TASKS, settings, console)
        wait_for(lambda: "there is no worker" in console.file.getvalue())
        with worker():  # it comes late, and is given the runs
            assert all(outcome.row for outcome in running.result(PATIENCE))
            assert results(checkpoints) == reference
            printed = console.file.getvalue()
            assert printed.count("is given no runs") == 1 and str(checkpoints) in printed
            assert not [*checkpoints.glob(".driver*")]

            long = Task("conv", seed=5, options={"max_epochs": 10_000}, **SMALL)
            running = pool.submit(run_all, [long], settings, quiet_console())
            wait_for(lambda: len(histories(checkpoints)) > len(TASKS))
            scheduler.kill()
            with pytest.raises(ConnectionError, match="scheduler has ended"):
                running.result(PATIENCE)


def test_a_worker_is_fit_with_the_drivers_code_and_folder(tmp_path):
    assert find_problem(CODE, str(tmp_path)) == ""
    assert "another version" in find_problem("other code", str(tmp_path))
    assert str(tmp_path) in find_problem(CODE, str(tmp_path / "missing"))


@pytest.mark.parametrize("change", ["", "x", "nowhere"])
def test_a_scheduler_that_does_not_answer(tmp_path, monkeypatch, change):
    monkeypatch.setattr(cluster, "PATIENCE", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        wrong = {"": address, "x": address[:-1] + "x", "nowhere": "nowhere"}[change]
        with pytest.raises(ConnectionError, match=f"no scheduler at {wrong} "):
            run_all(TASKS, Settings(checkpoints=tmp_path, scheduler=wrong), quiet_console())


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_shown(terminal):
    console = Console(file=io.StringIO(), width=90, force_terminal=terminal)
    with ProgressDisplay(["one", "two [b]", "three"], console, interval=0.05) as display:
        display.started(0)
        display.epoch_finished(0, epoch=2, max_epochs=10, loss=91.234, seconds=30)
        display.started(1)
        display.message(1, "is waiting for another process")
        display.message(1, "is waiting for another process")
        display.update(1, "cell 3 of 20")
        wait_for(lambda: "cell 3 of 20" in console.file.getvalue())
        display.finished(1, "diverged")
        display.update(1, "a late event")
    printed = console.file.getvalue()
    assert "epoch 2 of 10, loss 91.23, 4 min left" in printed
    assert "0 of 3 done" in printed and "about 7 min left" in printed
    assert printed.count("two [b]: is waiting for another process") == 1
    assert "[1/3] two [b]: diverged" in printed
    assert "late event" not in printed
