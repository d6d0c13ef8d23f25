"""Train or load many runs at the same time.

Each worker process has one thread and trains one run at a time. If a worker dies, another one
continues its run after the last finished epoch. Driver and workers share the folder of checkpoints.
"""

import hashlib
import importlib
import os
import pickle
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from functools import partial
from io import TextIOBase
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, NamedTuple

import distributed
import torch
from distributed import Client, Future, KilledWorker, Status, get_worker
from rich.console import Console

import vae_core
from vae_core.config import Config
from vae_core.runs import train_or_load
from vae_core.runs.results import result_row
from vae_core.storage import single_line
from vae_core.training import History, TrainingDiverged
from vae_study.cluster import PATIENCE, connect
from vae_study.progress import ProgressDisplay
from vae_study.settings import Settings
from vae_study.tasks import Task

POLLING = 0.5  # seconds after which a driver looks for new workers and for dead ones
MAX_DEATHS = 4  # workers that may die in one run, one after the other, without a finished epoch
SOURCES = sorted(Path(vae_core.__file__).parent.rglob("*.py"))
CODE = hashlib.sha256(b"".join(path.read_bytes() for path in SOURCES)).hexdigest()

SendEvent = Callable[..., None]  # takes the name of a method of `ProgressDisplay` and its arguments


class Outcome(NamedTuple):
    """The result of a task: a row of results (see `runs.results.result_row`), or an error."""

    task: Task
    row: dict[str, Any] | None = None
    error: str | None = None


class Attempt(NamedTuple):
    """The result of a task in one process."""

    row: dict[str, Any] | None = None
    error: str | None = None
    trained: bool = False  # at least one epoch; otherwise the run was loaded
    data_missing: bool = False


class Assignment(NamedTuple):
    """A run that a worker is computing."""

    index: int  # of its task
    future: Future


def run_all(tasks: list[Task], settings: Settings, console: Console | None = None) -> list[Outcome]:
    """Train or load each task, several at the same time; return the outcomes in the tasks' order.

    Progress is shown on `console`. A task that fails has an outcome with an error, and the others
    go on. After an interruption of any kind, the same call continues after the last finished
    epochs. Raises ConnectionError where the scheduler does not answer or has ended, and OSError
    where the folder of checkpoints cannot be written.
    """
    if not tasks:
        return []
    outcomes: dict[int, Outcome] = {}
    labels = [task.label for task in tasks]
    with (
        ProgressDisplay(labels, console or Console()) as display,
        connect(settings, len(tasks), display) as client,
    ):
        if client is None:
            attempts = one_after_the_other(tasks, settings, display)
        else:
            attempts = Distributor(client, tasks, settings, display).attempts()
        for index, attempt in attempts:
            outcomes[index] = Outcome(tasks[index], attempt.row, attempt.error)
            display.finished(index, describe(attempt))
    return [outcomes[index] for index in range(len(tasks))]


def describe(attempt: Attempt) -> str:
    """Return the result of a task in a few words."""
    if attempt.row is None:
        return attempt.error
    result = f"{attempt.row['epochs']} epochs, test loss {attempt.row['test_loss']:.2f}"
    return result if attempt.trained else f"{result} (already trained)"


def one_after_the_other(
    tasks: list[Task], settings: Settings, display: ProgressDisplay
) -> Iterator[tuple[int, Attempt]]:
    """Compute each task in this process; yield its index and its result."""
    for index, task in enumerate(tasks):
        send_event = partial(show_event, display, index)
        yield index, attempt_task(task, settings.checkpoints, send_event)


def show_event(display: ProgressDisplay, index: int, event: str, **details: Any) -> None:
    """Show an event of a run: "started", "epoch_finished" or "message"."""
    getattr(display, event)(index, **details)


class Distributor:
    """Give each fit worker of a cluster one run at a time, and collect the results.

    Workers may come and go. Those of an existing cluster are checked before their first run, and
    one that is unfit is named in a line and given none: it has several threads, another version of
    `vae_core`, or a folder of checkpoints that is not the driver's.
    """

    def __init__(
        self, client: Client, tasks: list[Task], settings: Settings, display: ProgressDisplay
    ):
        self.client = client
        self.tasks = tasks
        self.scheduler = settings.scheduler  # None: the workers are processes of this machine
        self.checkpoints = settings.checkpoints.absolute()
        self.display = display
        self.waiting = deque(range(len(tasks)))
        self.running: dict[str, Assignment] = {}  # by the address of the worker
        self.connected: set[str] = set()  # addresses of workers
        self.fit: set[str] = set()
        self.unfit: set[str] = set()
        self.last_epoch: Counter[int] = Counter()  # that is finished, by task
        self.deaths: Counter[int] = Counter()  # since then, by task
        self.topic = f"vae-study-{os.urandom(8).hex()}"  # of the events that workers send
        client.subscribe_topic(self.topic, self._receive_event)

    def attempts(self) -> Iterator[tuple[int, Attempt]]:
        """Yield the index and the result of each task as soon as it is finished."""
        while True:
            self._update_workers()
            yield from self._collect_runs()
            if not self.waiting and not self.running:
                return
            self._hand_out_runs()
            self._wait()

    def _collect_runs(self) -> Iterator[tuple[int, Attempt]]:
        """Take runs from the workers that have finished them or are gone; yield the results."""
        for address, (index, future) in list(self.running.items()):
            if address not in self.connected:
                attempt = self._after_death(address, index)
            elif future.done():
                attempt = self._after_end(address, index, future)
            else:
                continue
            del self.running[address]
            future.release()
            if attempt is None:
                self.waiting.appendleft(index)
            else:
                yield index, attempt

    def _update_workers(self) -> None:
        """Find out which workers are connected, and check those that are new."""
        with scheduler_errors(self.client):
            threads = self.client.nthreads()
        self.connected = set(threads)
        self.fit &= self.connected
        self.unfit &= self.connected
        new = self.connected - self.fit - self.unfit
        if self.scheduler is None:
            self.fit |= new
            return
        for address, problem in self._find_problems(new, threads).items():
            if problem:
                self._reject(address, problem)
            else:
                self.fit.add(address)
        if not self.fit:
            command = f"dask worker --nthreads 1 {self.scheduler}"
            self.display.print_line(f"there is no worker to give runs to; start one: {command}")

    def _find_problems(self, workers: set[str], threads: dict[str, int]) -> dict[str, str]:
        """Return by worker why it cannot be given runs; "" if it can."""
        problems = {}
        for address in workers:
            if threads[address] > 1:
                problems[address] = f"it has {threads[address]} threads; start it with --nthreads 1"
        unchecked = [address for address in workers if address not in problems]
        if not unchecked:
            return problems
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        with (
            NamedTemporaryFile(prefix=".driver-", dir=self.checkpoints) as file,
            scheduler_errors(self.client),
        ):
            check = imported_where_called("find_problem")
            options = {"workers": unchecked, "on_error": "return"}
            answers = self.client.run(check, CODE, file.name, **options)
        for address, answer in answers.items():
            problems[address] = single_line(answer) if answer else ""
        return problems

    def _reject(self, address: str, problem: str) -> None:
        self.fit.discard(address)
        self.unfit.add(address)
        self.display.print_line(f"worker {address} is given no runs: {problem}")

    def _hand_out_runs(self) -> None:
        """Give a waiting run to each fit worker that has none."""
        for address in sorted(self.fit - self.running.keys()):
            if not self.waiting:
                return
            index = self.waiting.popleft()
            with scheduler_errors(self.client):
                future = self.client.submit(
                    imported_where_called("run_in_worker"),
                    index,
                    pickle.dumps(self.tasks[index]),
                    self.checkpoints,
                    self.topic,
                    key=(self.topic, index, os.urandom(8).hex()),
                    workers=[address],
                    allow_other_workers=False,
                )
            self.running[address] = Assignment(index, future)

    def _wait(self) -> None:
        """Wait until a run is finished, or until it is time to look at the workers again."""
        futures = [assignment.future for assignment in self.running.values()]
        if not futures:
            time.sleep(POLLING)
            return
        with scheduler_errors(self.client), suppress(distributed.TimeoutError):
            distributed.wait(futures, POLLING, return_when="FIRST_COMPLETED")

    def _after_end(self, address: str, index: int, future: Future) -> Attempt | None:
        """Return the result of a run; None where it is to be given to another worker."""
        if future.status == "error":
            error = future.exception()
            if isinstance(error, KilledWorker):
                return self._deadly(index)
            return Attempt(error=error_text(error))
        try:
            with scheduler_errors(self.client):
                attempt = future.result(timeout=PATIENCE)
        except distributed.TimeoutError:  # the worker died with the result; the run is on the disk
            return None
        if attempt.data_missing and self.scheduler is not None:
            self._reject(address, attempt.error)
            return None
        return attempt

    def _after_death(self, address: str, index: int) -> Attempt | None:
        """Count the death of a worker; return None while its run is worth another attempt."""
        self.deaths[index] += 1
        if self.deaths[index] == MAX_DEATHS:
            return self._deadly(index)
        self.display.message(index, f"worker {address} is gone; another one continues")
        return None

    def _deadly(self, index: int) -> Attempt:
        epoch = self.last_epoch[index]
        where = f"after epoch {epoch}" if epoch > 0 else "in its first epoch"
        return Attempt(error=f"{MAX_DEATHS} workers died {where}, perhaps short of memory")

    def _receive_event(self, event: tuple[float, dict[str, Any]]) -> None:
        """Show an event that a worker has sent; called in a thread of the client."""
        _, details = event
        details = {name: value for name, value in details.items() if name != "worker"}
        index = details.pop("index")
        if details.get("epoch", 0) > self.last_epoch[index]:
            self.last_epoch[index] = details["epoch"]
            self.deaths[index] = 0
        show_event(self.display, index, **details)


@contextmanager
def scheduler_errors(client: Client) -> Iterator[None]:
    """Raise ConnectionError where the scheduler of a client has ended."""
    message = (
        "the scheduler has ended; finished epochs are kept, and with a new scheduler the same "
        "command goes on"
    )
    if client.status != "running":
        raise ConnectionError(message)
    try:
        yield
    except (distributed.CancelledError, distributed.comm.CommClosedError) as error:
        raise ConnectionError(message) from error


def imported_where_called(name: str) -> Callable[..., Any]:
    """Return a function that imports the function of this name from this module, and calls it.

    Dask sends it by value, so a scheduler can pass it on although it lacks this project, and a
    worker that lacks the project raises ImportError when it is called.
    """

    def call(*arguments):
        return getattr(importlib.import_module("vae_study.engine"), name)(*arguments)

    return call


# What follows is executed in the workers.


def find_problem(code: str, path: str) -> str:
    """Return why this process cannot be given runs; "" if it can.

    `code` is the driver's `CODE`, and `path` a file in the driver's folder of checkpoints.
    """
    if code != CODE:
        return "its vae_core is another version; give it the driver's and start it again"
    if not os.path.exists(path):
        return f"its {os.path.dirname(path)} is not the driver's; give both a shared folder"
    return ""


def run_in_worker(index: int, pickled_task: bytes, checkpoints: Path, topic: str) -> Attempt:
    """Train or load a run in a Dask worker, which sends events about it.

    The training ends with the next event where its driver has ended, or where the worker has been
    asked to close and another one may have been given the run.
    """
    worker = get_worker()
    key = worker.get_current_task()

    def send_event(event, **details):
        task = worker.state.tasks.get(key)
        is_wanted = task is not None and task.state == "executing"
        if not is_wanted or worker.status not in (Status.running, Status.paused):
            raise RuntimeError("this worker no longer has the run")
        worker.log_event(topic, {"index": index, "event": event, **details})

    torch.set_num_threads(1)
    return attempt_task(pickle.loads(pickled_task), checkpoints, send_event)


def attempt_task(task: Task, checkpoints: Path, send_event: SendEvent) -> Attempt:
    """Train or load a run and return its result; lines on the error stream become events."""
    reporter = Reporter(send_event)
    with redirect_stderr(MessageStream(send_event)):
        try:
            send_event("started")
            arguments = task.arguments
            run = train_or_load(
                **arguments, checkpoints=checkpoints, after_epoch=reporter.after_epoch
            )
            row = result_row(run, arguments["dataset"])
            return Attempt(row, trained=reporter.trained)
        except Exception as error:
            data_missing = isinstance(error, FileNotFoundError)
            return Attempt(error=error_text(error), data_missing=data_missing)


class Reporter:
    """Send an event after each epoch."""

    def __init__(self, send_event: SendEvent):
        self.send_event = send_event
        self.trained = False

    def after_epoch(self, config: Config, history: History) -> None:
        """Send the last epoch of the history and its loss."""
        self.trained = True
        self.send_event(
            "epoch_finished",
            epoch=len(history),
            max_epochs=config.max_epochs,
            loss=history[-1][f"{config.monitor}_loss"],
            seconds=history[-1]["seconds"],
        )


class MessageStream(TextIOBase):
    """A text stream that sends what is printed to it as events."""

    def __init__(self, send_event: SendEvent):
        self.send_event = send_event

    def write(self, text: str) -> int:
        """Send a line; the line ends that `print` writes on their own are left out."""
        if text.strip():
            self.send_event("message", text=text.strip())
        return len(text)


def error_text(error: Exception) -> str:
    """Return an error on one line, with its class where its message is not meant for the user."""
    if isinstance(error, (TrainingDiverged, ValueError, OSError)):
        return single_line(error)
    return f"{type(error).__name__}: {single_line(error)}"
