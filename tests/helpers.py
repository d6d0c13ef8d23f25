"""What several test files share: small data, small runs, damaged bytes."""

import dataclasses
import resource
from contextlib import contextmanager

import numpy as np
import torch

from vae_core.checkpoints import HISTORY, WEIGHTS
from vae_core.data import Dataset
from vae_core.experiment import train_or_load
from vae_core.parameter_sets import ParameterSet
from vae_core.synthetic import shapes

torch.set_num_threads(1)

TINY = ParameterSet("tiny", batch_size=16, learning_rate=1e-3, latent_dim=2)


def dataset_of(pictures, train, others, name="tiny"):
    """Make a data set of the first `train` pictures and two parts of `others` after them."""
    parts = pictures[: train + 2 * others].split([train, others, others])
    return Dataset(*parts, name, name, f"{int(pictures.long().sum()):016x}")


def tiny_dataset(train=40, others=8, seed=0):
    return dataset_of(shapes(train + 2 * others, seed)[0], train, others)


def tiny_run(checkpoints, dataset=None, model="conv", params=TINY, **options):
    """Train (or load) a run that takes a fraction of a second."""
    options = {"max_epochs": 2, "device": "cpu"} | options
    dataset = dataset or tiny_dataset()
    return train_or_load(model, params, dataset, checkpoints=checkpoints, **options)


def without_seconds(history):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history]


def outcome(folder):
    """The bytes of a run's weights and its history, but for the seconds at the end of a line."""
    lines = (folder / HISTORY).read_text().splitlines()
    return (folder / WEIGHTS).read_bytes(), [line.rpartition(",")[0] for line in lines]


def contents(folder):
    """The bytes of every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def same_run(one, other):
    """Whether two runs are equal in everything that was read from their files."""
    weights, others = one.model.state_dict(), other.model.state_dict()
    return (
        all(torch.equal(weights[name], others[name]) for name in weights | others)
        and one.history == other.history
        and dataclasses.replace(one, model=None, history=None)
        == dataclasses.replace(other, model=None, history=None)
    )


def one_line(error):
    message = str(error.value)
    assert message and "\n" not in message
    return message


@contextmanager
def full_disk(size):
    """Let no file grow beyond `size` bytes, as on a disk with so much space left."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def damaged(content, rng: np.random.Generator, other=b""):
    """Damage bytes in one of the ways in which files come to harm; `other` is a foreign file."""
    # Half of the damage falls on the first and the last bytes, which say what the others are.
    end = len(content)
    first, last = [(0, end), (0, end), (0, min(end, 512)), (max(0, end - 512), end)][
        rng.integers(4)
    ]
    where = int(rng.integers(first, last + 1))
    length = int(min(len(content) - where, 2 ** rng.uniform(0, 12)))
    before, part, after = (
        content[:where],
        content[where : where + length],
        content[where + length :],
    )
    noise = rng.bytes(length)
    match int(rng.integers(9)):
        case 0:
            return before
        case 1:
            return content[: int(rng.integers(16))]
        case 2:
            return before + noise + after
        case 3:
            return before + bytes(length) + after
        case 4:
            return before + after
        case 5:
            return before + part + part + after
        case 6:
            return other or noise
        case 7:  # a readable sign becomes another one, which keeps most formats well-formed
            readable = [at for at, sign in enumerate(content[:4096]) if 32 < sign < 127]
            changed = bytearray(content)
            for at in rng.choice(readable or [0], size=int(rng.integers(1, 4))):
                changed[at : at + 1] = b"%c" % rng.choice(list(b'0123456789-.,:[]{}"eEaAnulft'))
            return bytes(changed)
        case _:
            changed = bytearray(content)
            for bit in rng.integers(8 * first, 8 * last, size=int(rng.integers(1, 4))):
                changed[bit // 8] ^= 1 << bit % 8
            return bytes(changed)
