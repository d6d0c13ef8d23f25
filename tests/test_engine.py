"""Runs are shared out among real processes; whatever dies, they end as if nothing had happened.

Run as a program, this file is a driver: `test_engine.py CHECKPOINTS LOG`.
"""

import io
import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from unittest.mock import Mock, patch

import psutil
import pytest
from distributed import Client
from helpers import PATIENCE, outcome, wait_for
from rich.console import Console

from study import engine
from study.board import Board
from study.runs import Settings, Task
from vae_core.checkpoints import HISTORY
from vae_core.experiment import train_or_load
from vae_core.storage import PROJECT

EPOCHS = 8
SMALL = {"params": "plane", "dataset": "shapes", "limit": 64}
TASKS = [
    Task(model, seed=seed, options={"max_epochs": EPOCHS}, **SMALL)
    for model, seed in (("conv", 0), ("ae", 0), ("conv", 1))
]


class Deadly(Task):
    """A run that is too much for every worker."""

    @property
    def arguments(self):
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGKILL)


def training(checkpoints):
    """Whether a training stands after an epoch, but not at its end."""
    histories = [path.read_text().splitlines() for path in checkpoints.glob(f"*/*/{HISTORY}")]
    return any(1 < len(lines) <= EPOCHS for lines in histories)


def results(checkpoints):
    return {path.parent.name: outcome(path.parent) for path in checkpoints.glob(f"*/*/{HISTORY}")}


def workers(driver):
    """The worker processes of a driver: what its fork server forked."""
    processes = psutil.Process(driver).children(recursive=True)
    return [process for process in processes if process.ppid() != driver]


def gone(processes):
    return all(not one.is_running() or one.status() == psutil.STATUS_ZOMBIE for one in processes)


def run_all(checkpoints, tasks=TASKS, log=os.devnull, **settings):
    """Run the engine; return the outcomes and what was said, and note every epoch in a log."""
    hear, console = Board.hear, Console(file=io.StringIO(), width=200)

    def heard(self, run, **news):
        if news.get("epoch"):
            with open(log, "a") as file:
                file.write(f"{run} {news['epoch']}\n")
        hear(self, run, **news)

    with patch.object(Board, "hear", heard):
        outcomes = engine.run_all(tasks, Settings(checkpoints=checkpoints, **settings), console)
    return outcomes, console.file.getvalue()


def assert_no_epoch_twice(log, interruptions):
    """An epoch is told of once, and the last one once more by whoever goes on from it."""
    lines = [line.split() for line in log.read_text().splitlines()]
    for run in range(len(TASKS)):
        epochs = [int(epoch) for told, epoch in lines if int(told) == run]
        assert epochs == sorted(epochs) and len(epochs) <= len({*epochs}) + interruptions, epochs


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """What the runs are, trained one after the other in one thread."""
    checkpoints = tmp_path_factory.mktemp("reference")
    for task in TASKS:
        train_or_load(**task.arguments, checkpoints=checkpoints)
    return results(checkpoints)


@contextmanager
def program(*command, output=subprocess.DEVNULL):
    command = [sys.executable, *map(str, command)]
    options = {"stdout": output, "stderr": subprocess.STDOUT, "cwd": PROJECT, "text": True}
    with subprocess.Popen(command, **options) as process, ExitStack() as stack:
        stack.callback(process.kill)
        yield process


def test_a_killed_worker_a_deadly_run_and_two_that_fail(tmp_path, reference):
    log = tmp_path / "log"
    diverging = Task("conv", seed=0, options={"beta": 1e300}, **SMALL)
    absent = Task("conv", "plane", str(tmp_path / "nothing"), 0)
    tasks = [*TASKS, diverging, absent, Deadly("conv", seed=0, **SMALL)]

    def kill():
        wait_for(lambda: training(tmp_path))
        for worker in workers(os.getpid()):
            worker.kill()

    with ThreadPoolExecutor() as pool:
        killing = pool.submit(kill)
        outcomes, said = run_all(tmp_path, tasks, log, workers=2)
    killing.result()
    assert [ended.task for ended in outcomes] == tasks
    *good, diverged, missing, deadly = outcomes
    assert all(ended.row["epochs"] == EPOCHS and ended.row["threads"] == "1" for ended in good)
    assert "infinite or not a number" in diverged.error
    assert f"{tmp_path / 'nothing'}" in missing.error and "existing path" in missing.error
    assert "4 workers died in it" in deadly.error and "starts" in deadly.error
    assert {name: run for name, run in results(tmp_path).items() if name in reference} == reference
    assert_no_epoch_twice(log, 1)
    assert "because" in said and "[6/6]" in said and "Traceback" not in said

    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*") if path.is_file()}
    outcomes, said = run_all(tmp_path, tasks[:3], workers=2)
    assert said.count("(was there)") == 3 and all(ended.row for ended in outcomes)
    assert written == {path: path.stat().st_mtime_ns for path in written}


def test_ctrl_c_and_a_killed_driver(tmp_path, reference):
    log, checkpoints, orphans = tmp_path / "log", tmp_path / "runs", []

    def interrupt():
        wait_for(lambda: training(checkpoints))
        orphans.extend(workers(os.getpid()))
        for process in [*orphans, psutil.Process()]:  # as a terminal does with a whole group
            process.send_signal(signal.SIGINT)
        return time.monotonic()

    with ThreadPoolExecutor() as pool:
        interrupted = pool.submit(interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_all(checkpoints, log=log, workers=2)
    assert time.monotonic() - interrupted.result() < 5
    assert len(orphans) == 2 and gone(orphans)

    told = log.stat().st_size
    with program(__file__, checkpoints, log, output=subprocess.PIPE) as driver:
        wait_for(lambda: log.stat().st_size > told + 2 * len("0 1\n"))
        orphans = workers(driver.pid)
        driver.kill()
        wait_for(lambda: gone(orphans))
        assert len(orphans) == 2 and driver.communicate(timeout=PATIENCE)[0] == ""

    run_all(checkpoints, log=log, workers=2)
    assert results(checkpoints) == reference
    assert_no_epoch_twice(log, 2)


def test_an_existing_cluster(tmp_path, reference):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
    blind = tmp_path / "blind.py"  # as a worker on a machine with another folder of this name
    see = "lambda path: '.driver' not in str(path) and genericpath.exists(path)"
    blind.write_text(f"import genericpath, os\nos.path.exists = {see}\n")
    checkpoints, absent = tmp_path / "runs", Task("conv", "plane", str(tmp_path / "nothing"), 0)
    worker = ["worker", address, "--nthreads", 1, "--no-nanny", "--local-directory", tmp_path]
    start = partial(program, "-m", "dask")
    with (
        start("scheduler", "--host", address, "--no-dashboard") as scheduler,
        start(*worker, "--preload", blind),
        start(*worker),
    ):
        with Client(address, timeout=PATIENCE) as client:
            client.wait_for_workers(2, PATIENCE)
        (*outcomes, missing), said = run_all(checkpoints, [*TASKS, absent], scheduler=address)
        assert all(ended.row for ended in outcomes) and missing.row is None
        assert results(checkpoints) == reference
        unfit = rf"^worker tcp://.* not fit .* its {checkpoints} is not the driver's"
        assert len(re.findall(unfit, said, re.M)) == 1 and not [*checkpoints.glob(".driver*")]

        def stop():
            wait_for(lambda: len(list(checkpoints.rglob(HISTORY))) > len(TASKS))
            scheduler.kill()

        with pytest.raises(ConnectionError, match="is gone"), ThreadPoolExecutor() as pool:
            pool.submit(stop)
            run_all(checkpoints, [Task("conv", seed=5, **SMALL)], scheduler=address)


def test_a_scheduler_that_does_not_answer(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "PATIENCE", 1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        for wrong in (address, address[:-1] + "x", "nowhere"):
            with pytest.raises(ConnectionError, match=f"no scheduler at {wrong} .*; start it"):
                run_all(tmp_path, scheduler=wrong)


def test_without_sockets_one_after_the_other(tmp_path, monkeypatch, reference):
    monkeypatch.setattr(engine.socket, "create_server", Mock(side_effect=OSError("not permitted")))
    outcomes, said = run_all(tmp_path, TASKS[:1])
    assert outcomes[0].row and "no worker processes here (not permitted)" in said
    ((name, run),) = results(tmp_path).items()
    assert run == reference[name] and run_all(tmp_path, [])[0] == []


def test_what_goes_on_is_shown(monkeypatch):
    def shown(**options):
        console = Console(file=io.StringIO(), width=80, **options)
        with Board(["one", "two [b]", "three"], console) as board:
            board.hear(0, epoch=2, epochs=10, loss=91.234, seconds=30)
            board.hear(1, worker="tcp://a:1", said="is waiting for another process")
            board.hear(1, worker="tcp://a:1")
            board.hear(1, worker="tcp://b:1")
            time.sleep(0.3)
            board.finish(1, "diverged")
        return console.file.getvalue()

    monkeypatch.setattr("study.board.MINUTE", 0.1)
    for said in (shown(), shown(force_terminal=True)):
        assert "one: epoch 2 of 10, loss 91.23, 4 min left" in said
        assert "0 of 3 done in 0 s, about 7 min left" in said
        assert "two [b]: is waiting for another process" in said
        assert "two [b]: goes on at tcp://b:1, because tcp://a:1 is gone" in said
        assert "[1/3] two [b]: diverged" in said


if __name__ == "__main__":
    run_all(Path(sys.argv[1]), log=sys.argv[2], workers=2)
