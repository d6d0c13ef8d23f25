"""Worker processes on this machine's cores, or a connection to an existing Dask cluster."""

import importlib.util
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from unittest.mock import patch

import dask
import distributed
from distributed import Client, LocalCluster, Security
from distributed.utils import LoopRunner, get_mp_context

from vae_core.storage import single_line
from vae_study.progress import ProgressDisplay
from vae_study.settings import Settings

PATIENCE = 10  # seconds that a scheduler has to answer
WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "DASK_LOGGING__DISTRIBUTED": "critical",
    # Killed processes leave semaphores behind; multiprocessing removes them and would warn of it.
    "PYTHONWARNINGS": "ignore::UserWarning:multiprocessing.resource_tracker",
}
DASK_CONFIG = {}
if sys.platform == "linux":
    # Importing torch takes seconds, so workers are forks of a process that has imported it.
    DASK_CONFIG["distributed.worker.multiprocessing-method"] = "forkserver"


@contextmanager
def connect(settings: Settings, runs: int, display: ProgressDisplay) -> Iterator[Client | None]:
    """Connect to the cluster of the settings, or to new worker processes on this machine.

    There are at most as many new workers as `runs`; they end with the block. The client is None
    where this machine does not allow worker processes. Raises ConnectionError where the scheduler
    of the settings does not answer.
    """
    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with ExitStack() as stack:
        if settings.scheduler is not None:
            client = stack.enter_context(_existing_cluster(settings.scheduler))
        else:
            workers = min(settings.training_workers, runs)
            client = stack.enter_context(_new_workers(workers, display))
        has_dashboard = importlib.util.find_spec("bokeh") is not None
        if client is not None and has_dashboard and client.dashboard_link:
            display.print_line(f"the dashboard of the workers is {client.dashboard_link}")
        yield client


@contextmanager
def _existing_cluster(address: str) -> Iterator[Client]:
    try:
        _check_scheduler(address)
        client = Client(address, timeout=PATIENCE)
    except Exception as error:  # Dask and the network have many
        raise ConnectionError(
            f"no scheduler at {address} ({single_line(error)}); start it with `dask scheduler`, "
            "or leave SCHEDULER out to use this machine"
        ) from error
    with client:
        yield client


def _check_scheduler(address: str) -> None:
    """Connect to a scheduler once, since a client would wait forever for one that is silent."""
    options = Security().get_connection_args("client")
    options["callback_timeout"] = PATIENCE
    LoopRunner().run_sync(distributed.connect, address, PATIENCE, **options)


@contextmanager
def _new_workers(workers: int, display: ProgressDisplay) -> Iterator[Client | None]:
    with ExitStack() as stack:
        try:
            cluster = stack.enter_context(_local_cluster(workers))
            client = stack.enter_context(Client(cluster, timeout=PATIENCE))
        except Exception as error:  # Dask and the operating system have many
            reason = single_line(error)
            display.print_line(f"no worker processes ({reason}); one run after the other instead")
            client = None
        yield client


@contextmanager
def _local_cluster(workers: int) -> Iterator[LocalCluster]:
    """Start worker processes; kill them at the end, or when this process dies."""
    _check_sockets()
    with patch.dict(os.environ, WORKER_ENVIRONMENT), dask.config.set(DASK_CONFIG):
        get_mp_context().set_forkserver_preload(["vae_study.engine", "torch._dynamo"])
        # Workers inherit the signal mask: only this process reacts to Ctrl-C.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            cluster = LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                memory_limit=0,
                dashboard_address="127.0.0.1:0",
                silence_logs="CRITICAL",
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        try:
            yield cluster
        finally:
            _kill(cluster, workers)


def _check_sockets() -> None:
    """Raise OSError where a process may not connect to another one of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()


def _kill(cluster: LocalCluster, workers: int) -> None:
    """End all workers at once, since one that is training would not react to a request."""
    with suppress(Exception):  # a worker that is just being started would be missed
        cluster.wait_for_workers(workers, timeout=2)
    for nanny in cluster.workers.values():
        nanny.close_gracefully()
        with suppress(TypeError, ProcessLookupError):  # it has no process, or no more
            os.kill(nanny.pid, signal.SIGKILL)
    with suppress(Exception):
        cluster.close()
