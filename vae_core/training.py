"""The training loop, early stopping, and what is needed to go on after an interruption."""

import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor

from vae_core.checkpoints import History, State
from vae_core.data import Dataset
from vae_core.evaluation import evaluate, to_unit_interval
from vae_core.loss import REDUCTIONS, elbo
from vae_core.models import MODELS, VAE, build_model
from vae_core.parameter_sets import ParameterSet
from vae_core.progress import progress

PRECISIONS = ("auto", "float32", "bfloat16")
MONITORS = ("train", "validation")


class TrainingDiverged(RuntimeError):
    """The loss became infinite or NaN; the message says where and what was good before."""


@dataclass(frozen=True)
class Config:
    """Everything that decides how a training goes, but for the data.

    Attributes:
        model: "fc" or "conv".
        params: batch size, learning rate and latent dimensions.
        seed: all draws of the training come from generators seeded from it.
        max_epochs: where the training ends at the latest.
        patience: epochs without a fall of the monitored loss after which it stops.
        min_delta: what counts as a fall, in nats per picture.
        monitor: the loss that early stopping and the best epoch go by, "train" or "validation".
        beta: weight of the KL term.
        reduction: "sum" or "mean", see `elbo`.
        precision: "float32", "bfloat16", or "auto" for what suits the hardware.

    Raises:
        ValueError: a value makes no sense; the message names it.
    """

    model: str
    params: ParameterSet
    seed: int = 0
    max_epochs: int = 100
    patience: int = 5
    min_delta: float = 0.5
    monitor: str = "train"
    beta: float = 1.0
    reduction: str = "sum"
    precision: str = "auto"

    def __post_init__(self):
        for field, least in (("seed", 0), ("max_epochs", 1), ("patience", 1)):
            value = getattr(self, field)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{field} is {value!r}; give a whole number of at least {least}")
        if self.seed >= 2**63:
            raise ValueError(f"seed is {self.seed!r}; give a whole number below 2**63")
        for field in ("min_delta", "beta"):
            value = getattr(self, field)
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not is_number or not 0 <= value <= sys.float_info.max:
                raise ValueError(f"{field} is {value!r}; give a number of at least 0")
        for field, known in (
            ("model", tuple(MODELS)),
            ("monitor", MONITORS),
            ("reduction", REDUCTIONS),
            ("precision", PRECISIONS),
        ):
            value = getattr(self, field)
            if value not in known:
                raise ValueError(f"unknown {field} {value!r}; choose one of {', '.join(known)}")


def choose_device(name: str | None = None) -> torch.device:
    """Return the device of this name, or the best there is: CUDA, then MPS, then the CPU.

    Raises:
        ValueError: this machine does not have the device that was named.
    """
    there = ["cpu"]
    if torch.backends.mps.is_available():
        there.insert(0, "mps")
    if torch.cuda.is_available():
        there.insert(0, "cuda")
    if name is None:
        return torch.device(there[0])
    try:
        if str(name).split(":")[0] in there:
            return torch.device(name)
    except RuntimeError:
        pass  # what stands after the colon is no number
    raise ValueError(f"unknown device {name!r}; this machine has {', '.join(there)}")


def choose_precision(precision: str, device: torch.device) -> str:
    """Return "float32" or "bfloat16"; "auto" becomes what the hardware is made for.

    On the CPU, bfloat16 is faster only with AVX512-BF16 or AMX instructions, and slower than
    float32 where it is emulated.
    """
    if precision != "auto":
        return precision
    if device.type == "cuda":
        made_for_it = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        made_for_it = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    else:
        made_for_it = False
    return "bfloat16" if made_for_it else "float32"


def seeded_generator(device: torch.device | str, *seed: int) -> Generator:
    """Return a generator on `device`, seeded from whole numbers that together name its use."""
    mixed = np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]
    return Generator(device).manual_seed(int(mixed) >> 1)


def initial_model(config: Config) -> VAE:
    """Build the model with initial weights that depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return build_model(config.model, config.params.latent_dim)


def stopping_epoch(losses: Sequence[float], patience: int, min_delta: float) -> int | None:
    """Return the epoch, counted from 1, after which early stopping ends the training.

    An epoch counts as progress when its loss is more than `min_delta` below that of the last
    epoch which counted. After `patience` epochs in a row without progress the training stops.

    Args:
        losses: the monitored loss of each epoch.

    Returns:
        the epoch, or None where the losses give no reason to stop.
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
    start: State | None = None,
    after_epoch: Callable[[dict[str, Tensor], History], None] = lambda tensors, history: None,
) -> tuple[dict[str, Tensor], History]:
    """Train until early stopping or `max_epochs`.

    Each epoch draws its order and its noise from generators seeded from the run's seed and the
    epoch's number, so a training that goes on from `start` sees what it would have seen.

    Args:
        dataset: its train part is learned, its validation part is only measured.
        start: what an interrupted training left.
        after_epoch: called after each epoch with the tensors and the history of a `State`.

    Returns:
        the weights of the best epoch, on the CPU, and the history.

    Raises:
        TrainingDiverged: the loss became infinite or NaN.
    """
    model = initial_model(config).to(device, memory_format=MODELS[config.model].memory_format)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.params.learning_rate, fused=True)
    history: History = []
    best: dict[str, Tensor] = {}
    if start is not None:
        history = list(start.history)
        best = _restore(start.tensors, model, optimizer)
    pictures = dataset.train.to(device)

    while not _is_finished(config, history):
        began = time.perf_counter()
        epoch = len(history) + 1
        row = _train_epoch(model, optimizer, pictures, config, epoch, history)
        held_out = evaluate(model, dataset.validation, beta=config.beta, reduction=config.reduction)
        row |= {f"validation_{name}": value for name, value in held_out.items()}
        if not math.isfinite(held_out["loss"]):
            raise _diverged("the validation loss", epoch, "after its last step", history)
        history.append({"epoch": epoch, **row, "seconds": time.perf_counter() - began})
        if best_epoch(monitored(config, history)) == epoch:
            best = {
                name: value.detach().cpu().clone() for name, value in model.state_dict().items()
            }
        after_epoch(_snapshot(model, optimizer, best), history)

    return best, history


def _train_epoch(
    model: VAE,
    optimizer: torch.optim.Optimizer,
    pictures: Tensor,
    config: Config,
    epoch: int,
    history: History,
) -> dict[str, float]:
    """Train on every picture once; return the mean over pictures of the loss and its parts."""
    device = pictures.device
    order = torch.randperm(len(pictures), generator=seeded_generator("cpu", config.seed, epoch, 0))
    noise = seeded_generator(device, config.seed, epoch, 1)
    bfloat16 = choose_precision(config.precision, device) == "bfloat16"
    batches = order.to(device).split(config.params.batch_size)
    sums = torch.zeros(len(batches), 3, device=device)

    bar = progress(batches, desc=f"{model.title} {config.params.name} epoch {epoch}", unit="batch")
    for step, indices in enumerate(bar):
        batch = to_unit_interval(pictures[indices], model)
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
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
                raise _diverged("the loss", epoch, f"at step {first}", history)
            loss, reconstruction, kl = (sums[step] / len(indices)).tolist()
            bar.set_postfix_str(
                f"loss {loss:.1f} = {reconstruction:.1f} + KL {kl:.1f}", refresh=False
            )

    means = (sums.cpu().double().sum(0) / len(pictures)).tolist()
    return dict(zip(("train_loss", "train_reconstruction", "train_kl"), means, strict=True))


def monitored(config: Config, history: History) -> list[float]:
    """Return the loss of each epoch that early stopping and the best epoch go by."""
    return [row[f"{config.monitor}_loss"] for row in history]


def _is_finished(config: Config, history: History) -> bool:
    losses = monitored(config, history)
    stopped = stopping_epoch(losses, config.patience, config.min_delta) is not None
    return stopped or len(history) >= config.max_epochs


def _diverged(what: str, epoch: int, where: str, history: History) -> TrainingDiverged:
    good = "no epoch was finished before"
    if history:
        last = history[-1]
        good = (
            f"epoch {last['epoch']} was still good: training loss {last['train_loss']:.2f}, "
            f"validation loss {last['validation_loss']:.2f}"
        )
    return TrainingDiverged(
        f"{what} is infinite or not a number in epoch {epoch}, {where} ({good}); "
        "choose a smaller learning rate"
    )


def _snapshot(
    model: VAE, optimizer: torch.optim.Optimizer, best: dict[str, Tensor]
) -> dict[str, Tensor]:
    tensors = {f"best/{name}": value for name, value in best.items()}
    for name, parameter in model.named_parameters():
        tensors[f"weights/{name}"] = parameter
        for key, value in optimizer.state[parameter].items():
            tensors[f"{key}/{name}"] = value
    return tensors


def _restore(
    tensors: dict[str, Tensor], model: VAE, optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """Put a snapshot into the model and the optimizer; return the best weights."""
    for name, parameter in model.named_parameters():
        parameter.data.copy_(tensors[f"weights/{name}"])
        moments = {key: tensors[f"{key}/{name}"] for key in ("exp_avg", "exp_avg_sq")}
        # The fused step walks through memory, so the moments must lie as the parameter does.
        optimizer.state[parameter] = {
            "step": tensors[f"step/{name}"].to(parameter.device),
            **{
                key: torch.empty_like(parameter.data).copy_(value) for key, value in moments.items()
            },
        }
    return {
        key.removeprefix("best/"): value
        for key, value in tensors.items()
        if key.startswith("best/")
    }
