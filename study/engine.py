"""Where the runs are computed: worker processes on this machine's cores, or an existing cluster.

Dask distributed gives each run to a worker of one thread, and to another one where that dies; the
training goes on after its last finished epoch. Driver and workers share the folder of checkpoints.
"""

import hashlib
import importlib.util
import logging
import os
import pickle
import signal
import socket
import sys
from collections import defaultdict
from contextlib import ExitStack, contextmanager, redirect_stderr, suppress
from functools import partial
from io import TextIOBase
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, NamedTuple
from unittest.mock import patch

import dask.system
import distributed
import torch
from distributed import Client, KilledWorker, LocalCluster, Security, as_completed, get_worker
from distributed.utils import LoopRunner, get_mp_context
from rich.console import Console

import vae_core
from study.board import Board
from study.runs import Settings, Task
from vae_core.experiment import train_or_load
from vae_core.storage import in_one_line
from vae_core.tables import result
from vae_core.training import TrainingDiverged

PATIENCE = 10  # seconds
SOURCES = sorted(Path(vae_core.__file__).parent.rglob("*.py"))
CODE = hashlib.sha256(b"".join(path.read_bytes() for path in SOURCES)).hexdigest()
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "DASK_LOGGING__DISTRIBUTED": "critical"}
# Killed processes leave semaphores; multiprocessing removes them, and would say so.
ENVIRONMENT["PYTHONWARNINGS"] = "ignore::UserWarning:multiprocessing.resource_tracker"
CONFIG = {"distributed.scheduler.worker-saturation": 1.0}  # a run that waits dies with no worker
if sys.platform == "linux":  # importing torch takes seconds: workers are forks of one that did it
    CONFIG["distributed.worker.multiprocessing-method"] = "forkserver"


class Outcome(NamedTuple):
    """What became of a task: a row of results (see `vae_core.tables.result`), or an error."""

    task: Task
    row: dict[str, Any] | None = None
    error: str | None = None


def run_all(tasks: list[Task], settings: Settings, console: Console | None = None) -> list[Outcome]:
    """Train or load every task once, several at a time; return the outcomes in the tasks' order.

    What goes on is shown on `console`. A task that fails is an outcome with an error, and the
    others go on. Stopped in whatever way, the same call goes on after the last finished epochs.
    Raises ConnectionError where the scheduler does not answer, or is gone, and OSError where the
    folder of checkpoints cannot be written.
    """
    ended, labels = {}, [task.label for task in tasks]
    with Board(labels, console or Console()) as board, _client(settings, board) as client:
        share_out = _shared_out if client else _in_turn
        for run, row, error in share_out(client, tasks, settings, board):
            ended[run] = Outcome(tasks[run], row, error)
            news = error or f"{row['epochs']} epochs, test loss {row['test_loss']:.2f}"
            board.finish(run, news if error or run in board.whole else f"{news} (was there)")
    return [ended[run] for run in range(len(tasks))]


@contextmanager
def _client(settings, board):
    """Connect to the cluster, or to one of this machine's cores; None where there can be none."""
    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    address, client = settings.scheduler, None
    with ExitStack() as stack:
        try:
            workers = min(settings.workers or dask.system.CPU_COUNT, len(board.labels))
            if address:  # a client would wait for ever for a scheduler that listens and is silent
                once = {"callback_timeout": PATIENCE, **Security().get_connection_args("client")}
                LoopRunner().run_sync(distributed.connect, address, PATIENCE, **once)
            cluster = address or stack.enter_context(_local_cluster(workers))
            client = stack.enter_context(Client(cluster, timeout=PATIENCE))
            if importlib.util.find_spec("bokeh") and client.dashboard_link:
                board.say(f"what the workers do is shown at {client.dashboard_link}")
            if address and not client.nthreads():
                board.say(f"no worker yet; this starts one: dask worker --nthreads 1 {address}")
        except Exception as error:
            reason = in_one_line(error)
            if address:
                advice = "start it (dask scheduler), or leave SCHEDULER out to use this machine"
                raise ConnectionError(f"no scheduler at {address} ({reason}); {advice}") from error
            board.say(f"no worker processes here ({reason}): one run after the other")
        yield client


@contextmanager
def _local_cluster(workers):
    """Start worker processes, which end with this one."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()
    options = {"memory_limit": 0, "dashboard_address": "127.0.0.1:0", "silence_logs": "CRITICAL"}
    with patch.dict(os.environ, ENVIRONMENT), dask.config.set(CONFIG):
        get_mp_context().set_forkserver_preload([__name__, "torch._dynamo"])
        # Workers inherit the mask: Ctrl-C is for this process alone to answer.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            cluster = LocalCluster(n_workers=workers, threads_per_worker=1, **options)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        try:
            yield cluster
        finally:
            with suppress(Exception):  # a worker that is just being started would not be found
                cluster.wait_for_workers(workers, timeout=2)
            for nanny in cluster.workers.values():
                nanny.close_gracefully()
                with suppress(TypeError, ProcessLookupError):  # in a training it would not close
                    os.kill(nanny.pid, signal.SIGKILL)
            with suppress(Exception):
                cluster.close()


def _in_turn(client, tasks, settings, board):
    for run, task in enumerate(tasks):
        yield run, *_attempt(task, settings.checkpoints, partial(board.hear, run))[:2]


def _shared_out(client, tasks, settings, board):
    """Yield the place, the row and the error of each task as soon as it is finished."""
    topic, checkpoints = f"study-{os.urandom(8).hex()}", settings.checkpoints.absolute()
    tried, marker = defaultdict(set), None

    def work(run, task):
        # Sent by value, so that it also runs where the project is missing or another version.
        try:
            in_worker = importlib.import_module("study.engine").in_worker
            answer = in_worker(run, task, topic, CODE, checkpoints, marker)
        except Exception as error:
            answer = None, f"not fit for this command: {error}", True
        return *answer, get_worker().address

    def submit(run, **where):
        key = (topic, run, os.urandom(8).hex())
        return client.submit(work, run, pickle.dumps(tasks[run]), key=key, **where)

    with ExitStack() as stack:
        if settings.scheduler:
            checkpoints.mkdir(parents=True, exist_ok=True)
            marker = stack.enter_context(NamedTemporaryFile(prefix=".driver", dir=checkpoints)).name
        client.subscribe_topic(topic, lambda event: board.hear(**event[1]))
        queue = as_completed([submit(run) for run in range(len(tasks))])
        for future in queue:
            run = future.key[1]
            try:
                row, error, elsewhere, worker = future.result()
            except distributed.CancelledError:
                advice = "finished epochs are kept, and with a new one the same command goes on"
                raise ConnectionError(f"the scheduler is gone; {advice}") from None
            except KilledWorker as death:
                died = f"{death.allowed_failures + 1} workers died in it, maybe short of memory"
                error = f"{died}; {board.running.get(run, 'it told nothing')}"
                row, elsewhere = None, False
            if marker and elsewhere:
                tried[run].add(worker)
                board.say(f"worker {worker}: {error}")
                if others := client.nthreads().keys() - tried[run]:
                    queue.add(submit(run, workers=list(others), allow_other_workers=True))
                    continue
            yield run, row, error


def in_worker(run, task, topic, code, checkpoints, marker):
    """Do a task in a worker; RuntimeError where this worker is not fit for any."""
    worker, key = get_worker(), get_worker().get_current_task()
    if worker.state.nthreads > 1:
        raise RuntimeError("start it with --nthreads 1")
    if code != CODE:
        raise RuntimeError("its vae_core is another version; give it this one and start it anew")
    if marker and not os.path.exists(marker):
        raise RuntimeError(f"its {checkpoints} is not the driver's; give both a shared folder")

    def tell(**news):
        if getattr(worker.state.tasks.get(key), "state", None) != "executing":
            raise RuntimeError("the driver is gone")
        worker.log_event(topic, {"run": run, **news})

    torch.set_num_threads(1)
    return _attempt(pickle.loads(task), checkpoints, tell)


def _attempt(task, checkpoints, tell):
    """Train or load a run; return its row, an error, and whether another worker may do better."""

    def after_epoch(config, history):
        loss, seconds = history[-1][f"{config.monitor}_loss"], history[-1]["seconds"]
        tell(epoch=len(history), epochs=config.max_epochs, loss=loss, seconds=seconds)

    said = TextIOBase()
    said.write = lambda text: tell(said=text.strip()) if text.strip() else None
    with redirect_stderr(said):
        try:
            tell()
            asked = task.arguments
            run = train_or_load(**asked, checkpoints=checkpoints, after_epoch=after_epoch)
            return result(run, asked["dataset"]), None, False
        except Exception as error:
            told = isinstance(error, (TrainingDiverged, ValueError, OSError))
            kind = "" if told else f"{type(error).__name__}: "
            return None, kind + in_one_line(error), isinstance(error, FileNotFoundError)
