"""The training loop and early stopping."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor

from vae_core.data import Dataset
from vae_core.evaluation import evaluate
from vae_core.loss import elbo
from vae_core.models import MODELS, VAE
from vae_core.parameter_sets import ParameterSet
from vae_core.storage import number, progress, whole_number

VALUES = {
    "model": MODELS,
    "monitor": ("train", "validation"),
    "reduction": ("sum", "mean"),
    "precision": ("auto", "float32", "bfloat16"),
    "schedule": ("constant", "cosine"),
}
History = list[dict[str, float]]
Tensors = dict[str, Tensor]


class TrainingDiverged(RuntimeError):
    """The loss became infinite or NaN; the message says where and what was good before."""


@dataclass(frozen=True)
class Config:
    """Everything that decides how a training goes, but for the data.

    The schedule "cosine" is a learning rate that falls to 0 over `max_epochs` (Loshchilov & Hutter
    2017, arXiv:1608.03983, without restarts). A ValueError names a value that makes no sense.
    """

    model: str  # a name in `MODELS`
    params: ParameterSet
    seed: int = 0  # of all draws in the training
    max_epochs: int = 100  # where it ends at the latest
    patience: int = 5  # epochs without a fall of the monitored loss that end it; 0: no stopping
    min_delta: float = 0.5  # what counts as a fall, in nats per image
    monitor: str = "train"  # or "validation": the loss that stopping and the best epoch go by
    beta: float = 1.0  # weight of the KL term
    reduction: str = "sum"  # or "mean", see `elbo`
    precision: str = "auto"  # what suits the hardware; or "float32", "bfloat16"
    schedule: str = "constant"  # or "cosine"

    def __post_init__(self):
        for field, least in (("seed", 0), ("max_epochs", 1), ("patience", 0)):
            object.__setattr__(self, field, whole_number(field, getattr(self, field), least))
        for field in ("min_delta", "beta"):
            object.__setattr__(self, field, number(field, getattr(self, field)))
        for field, known in VALUES.items():
            value = getattr(self, field)
            if not isinstance(value, str) or value not in known:
                raise ValueError(f"unknown {field} {value!r}; choose one of {', '.join(known)}")
        if self.schedule == "cosine" and self.patience:
            raise ValueError(
                f"patience is {self.patience}, but the schedule 'cosine' has to run to max_epochs; "
                "give patience 0, which is no early stopping"
            )


class State(NamedTuple):
    """An unfinished training: weights, optimizer and best weights by name, and its epochs."""

    tensors: Tensors
    history: History


def seeded_generator(device: torch.device | str, *seed: int) -> Generator:
    """Return a generator on `device`, seeded from whole numbers that together name its use."""
    mixed = np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]
    return Generator(device).manual_seed(int(mixed) >> 1)


def initial_model(config: Config, image_shape: tuple[int, int, int]) -> VAE:
    """Build the model with initial weights that depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return MODELS[config.model](config.params.latent_dim, image_shape)


def stopping_epoch(losses: Sequence[float], patience: int, min_delta: float) -> int | None:
    """Return the epoch, counted from 1, after which early stopping ends the training, or None.

    An epoch counts as progress when its loss is more than `min_delta` below that of the last
    epoch which counted. After `patience` epochs in a row without progress the training stops.
    """
    reference, waited = math.inf, 0
    for epoch, loss in enumerate(losses, start=1):
        if loss < reference - min_delta:
            reference, waited = loss, 0
        else:
            waited += 1
        if waited == patience:
            return epoch
    return None


def best_epoch(losses: Sequence[float]) -> int:
    """Return the epoch of the lowest loss, counted from 1; the first of several."""
    return 1 + min(range(len(losses)), key=losses.__getitem__)


def train(
    config: Config,
    dataset: Dataset,
    device: torch.device,
    precision: str = "float32",
    start: State | None = None,
    after_epoch: Callable[[State], None] = lambda state: None,
) -> tuple[VAE, History]:
    """Train until early stopping or `max_epochs`; return the best epoch's model and the history.

    A model with a closed form is solved. What is returned is on the CPU and in evaluation mode.
    Each epoch draws its order and its noise from generators seeded from the run's seed and the
    epoch's number, so a training that goes on from `start` sees what it would have seen.

    Args:
        dataset: its train part is learned, its validation part is only measured.
        precision: what `config.precision` means on this device, "float32" or "bfloat16".
        start: what an interrupted training left.
        after_epoch: called after each epoch with what an interruption would leave.

    Raises TrainingDiverged where the loss becomes infinite or NaN.
    """
    model = initial_model(config, tuple(dataset.train.shape[1:]))
    if hasattr(model, "fit"):
        history = [solve(model, config, dataset)]
        after_epoch(State({}, history))
        return model.eval(), history
    model = model.to(device, memory_format=model.memory_format)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.params.learning_rate, fused=True)
    history: History = list(start.history) if start else []
    best = restore(start.tensors, model, optimizer) if start else {}
    images = dataset.train.to(device)

    while True:
        losses = [row[f"{config.monitor}_loss"] for row in history]
        stopped = config.patience and stopping_epoch(losses, config.patience, config.min_delta)
        if stopped or len(history) >= config.max_epochs:
            break
        began, epoch = time.perf_counter(), len(history) + 1
        row = train_epoch(model, optimizer, images, config, precision, epoch, history)
        held_out = evaluate(model, dataset.validation, beta=config.beta, reduction=config.reduction)
        if not math.isfinite(held_out["loss"]):
            raise diverged("the validation loss", epoch, "after its last step", history)
        row |= {f"validation_{part}": value for part, value in held_out.items()}
        history.append({"epoch": epoch, **row, "seconds": time.perf_counter() - began})
        if best_epoch([*losses, row[f"{config.monitor}_loss"]]) == epoch:
            best = {name: value.cpu().clone() for name, value in model.state_dict().items()}
        after_epoch(State(snapshot(model, optimizer, best), history))

    model.load_state_dict(best)
    return model.cpu().eval(), history


def solve(model: VAE, config: Config, dataset: Dataset) -> dict[str, float]:
    """Give a model its closed form; return the one epoch of its history."""
    began = time.perf_counter()
    values = math.prod(model.image_shape) if config.reduction == "mean" else 1
    model.fit(dataset.train, config.beta * values)
    row = {"epoch": 1}
    for part, images in (("train", dataset.train), ("validation", dataset.validation)):
        found = evaluate(model, images, beta=config.beta, reduction=config.reduction)
        row |= {f"{part}_{name}": value for name, value in found.items()}
    return row | {"seconds": time.perf_counter() - began}


def train_epoch(
    model: VAE,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    config: Config,
    precision: str,
    epoch: int,
    history: History,
) -> dict[str, float]:
    """Train on every image once; return the means over images of the loss and its parts."""
    device = images.device
    order = torch.randperm(len(images), generator=seeded_generator("cpu", config.seed, epoch, 0))
    noise = seeded_generator(device, config.seed, epoch, 1)
    batches = order.to(device).split(config.params.batch_size)
    sums = torch.zeros(len(batches), 3, device=device)

    bar = progress(batches, desc=f"{model.title} {config.params.name} epoch {epoch}", unit="batch")
    for step, indices in enumerate(bar):
        if config.schedule == "cosine":
            done = (epoch - 1 + step / len(batches)) / config.max_epochs
            rate = config.params.learning_rate * (1 + math.cos(math.pi * done)) / 2
            optimizer.param_groups[0]["lr"] = rate
        batch = model.unit_interval(images[indices])
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            decoded, mu, logvar = model(batch, noise)
        parts = elbo(decoded, batch, mu, logvar, config.beta, config.reduction)
        optimizer.zero_grad()
        parts.total.mean().backward()
        optimizer.step()

        sums[step] = torch.stack(parts).detach().sum(1)
        # Reading a figure makes the host wait for a GPU, so it is done now and then only.
        if step % 50 == 49 or step == len(batches) - 1:
            finite = sums[: step + 1].isfinite().all(1)
            if not finite.all():
                first = int(finite.int().argmin()) + 1
                raise diverged("the loss", epoch, f"at step {first}", history)
            bar.set_postfix_str(f"loss {sums[step, 0] / len(indices):.1f}", refresh=False)

    means = (sums.cpu().double().sum(0) / len(images)).tolist()
    return dict(zip(("train_loss", "train_reconstruction", "train_kl"), means, strict=True))


def diverged(what: str, epoch: int, where: str, history: History) -> TrainingDiverged:
    """Say where a training left the ground, and what was good before."""
    said = "epoch {epoch} was still good: training loss {train_loss:.2f}, "
    said += "validation loss {validation_loss:.2f}"
    good = said.format(**history[-1]) if history else "no epoch was finished before"
    return TrainingDiverged(
        f"{what} is infinite or not a number in epoch {epoch}, {where} ({good}); "
        "choose a smaller learning rate"
    )


def snapshot(model: VAE, optimizer: torch.optim.Optimizer, best: Tensors) -> Tensors:
    """Return everything that `restore` needs, by name."""
    tensors = {f"best/{name}": value for name, value in best.items()}
    for name, parameter in model.named_parameters():
        tensors[f"weights/{name}"] = parameter
        for key, value in optimizer.state[parameter].items():
            tensors[f"{key}/{name}"] = value
    return tensors


def restore(tensors: Tensors, model: VAE, optimizer: torch.optim.Optimizer) -> Tensors:
    """Put a snapshot into the model and the optimizer; return the best weights."""
    for name, parameter in model.named_parameters():
        parameter.data.copy_(tensors[f"weights/{name}"])
        # The fused step walks through memory, so the moments must lie as the parameter does.
        optimizer.state[parameter] = {
            key: torch.empty_like(parameter.data).copy_(tensors[f"{key}/{name}"])
            for key in ("exp_avg", "exp_avg_sq")
        } | {"step": tensors[f"step/{name}"].to(parameter.device)}
    kept = (name for name in tensors if name.startswith("best/"))
    return {name.removeprefix("best/"): tensors[name] for name in kept}
