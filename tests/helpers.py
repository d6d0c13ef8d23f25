"""What several test files share: small data, small runs."""

import hashlib
import resource
import time
from contextlib import contextmanager

import torch

from vae_core.config import ParameterSet
from vae_core.data import Dataset
from vae_core.data.synthetic import shapes
from vae_core.runs import train_or_load
from vae_core.runs.checkpoints import HISTORY, WEIGHTS

torch.set_num_threads(1)

TINY = ParameterSet("tiny", batch_size=16, learning_rate=1e-3, latent_dim=2)
PATIENCE = 60  # seconds after which an event that should have happened is a failure


def tiny_dataset(train=40, others=8, seed=0):
    images = shapes(train + 2 * others, seed)[0]
    digest = hashlib.sha256(images.numpy().tobytes()).hexdigest()
    return Dataset(*images.split([train, others, others]), "tiny", "tiny", digest[:16])


def tiny_run(checkpoints, dataset=None, model="conv", params=TINY, **options):
    """Train (or load) a run that takes a fraction of a second."""
    options = {"max_epochs": 2, "device": "cpu", "precision": "float32"} | options
    dataset = dataset or tiny_dataset()
    return train_or_load(model, params, dataset, checkpoints=checkpoints, **options)


def outcome(folder):
    """The bytes of a run's weights and its history, without the seconds at the end of a line."""
    lines = (folder / HISTORY).read_text().splitlines()
    return (folder / WEIGHTS).read_bytes(), [line.rpartition(",")[0] for line in lines]


def contents(folder):
    """The bytes of every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def one_line(error):
    message = str(error.value)
    assert message and "\n" not in message
    return message


def wait_for(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.002)


@contextmanager
def full_disk(size):
    """Let no file grow beyond `size` bytes, as on a disk with so much space left."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
