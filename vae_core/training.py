"""The training loop, early stopping and the learning-rate schedule."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor

from vae_core.config import Config
from vae_core.evaluation import evaluate
from vae_core.loss import elbo
from vae_core.models import MODELS, VAE
from vae_core.storage import progress_bar

History = list[dict[str, float]]  # a row an epoch: "epoch", losses by part of the data, "seconds"

CHECK_EVERY = 50  # steps between two checks that the loss is finite
VARIANCE_IMAGES = 5000  # training images whose error sets a learned decoder variance
# Below the variance of rounding to 8 bits, a density of the values on [0, 1] means nothing.
MIN_VARIANCE = 1 / (12 * 255**2)

# What random numbers are used for, in the seeds of their generators.
ORDER, NOISE, FLIPS, LAYERS = 0, 1, 2, 3


class TrainingDiverged(RuntimeError):
    """The loss became infinite or NaN; the message names the epoch and the last good losses."""


class TrainingState(NamedTuple):
    """Everything that is needed to continue a training after an epoch."""

    history: History
    model: dict[str, Tensor]  # state_dict
    optimizer: dict[str, Any]  # state_dict
    best: dict[str, Tensor]  # state_dict of the model after its best epoch


def train(
    config: Config,
    train_images: Tensor,
    validation_images: Tensor,
    device: torch.device,
    *,
    precision: str = "float32",
    resume_from: TrainingState | None = None,
    after_epoch: Callable[[TrainingState], None] = lambda state: None,
) -> tuple[VAE, History]:
    """Train until early stopping or `max_epochs`; return the model of the best epoch and history.

    A model with a closed form is solved instead. The returned model is on the CPU and in evaluation
    mode. The random numbers of an epoch come from generators that are seeded from the run's seed
    and the epoch's number, so an interrupted training continues with the same numbers.

    Args:
        train_images, validation_images: uint8 [N, C, H, W]; the latter are only measured.
        precision: "float32" or "bfloat16", what `config.precision` means on this device.
        resume_from: the state that an interrupted training left.
        after_epoch: called after each epoch with the state that continues the training.

    Raises TrainingDiverged where the loss becomes infinite or NaN.
    """
    image_shape = tuple(train_images.shape[1:])
    if MODELS[config.model].closed_form:
        model, row = solve(config, train_images, validation_images)
        after_epoch(TrainingState([row], {}, {}, {}))
        return model.eval(), [row]
    trainer = Trainer(config, image_shape, train_images.to(device), precision)
    if resume_from is not None:
        trainer.load(resume_from)
    while not trainer.is_finished():
        trainer.run_epoch(validation_images)
        after_epoch(trainer.state())
    return trainer.best_model(), trainer.history


class Trainer:
    """One training: the model, its optimizer, and the history so far."""

    def __init__(
        self, config: Config, image_shape: tuple[int, int, int], images: Tensor, precision: str
    ):
        self.config = config
        self.images = images
        self.device = images.device
        self.precision = precision
        model = initial_model(config, image_shape)
        self.model = model.to(self.device, memory_format=model.memory_format)
        self.optimizer = make_optimizer(config, self.model)
        self.history: History = []
        self.best: dict[str, Tensor] = {}

    def load(self, state: TrainingState) -> None:
        """Continue from this state."""
        self.model.load_state_dict(state.model)
        self.optimizer.load_state_dict(state.optimizer)
        self.history = list(state.history)
        self.best = state.best

    def state(self) -> TrainingState:
        """Return the state that continues this training; later steps change its tensors."""
        model, optimizer = self.model.state_dict(), self.optimizer.state_dict()
        return TrainingState(self.history, model, optimizer, self.best)

    def monitored_losses(self) -> list[float]:
        """Return the losses, epoch by epoch, that early stopping and the best epoch go by."""
        return [row[f"{self.config.monitor}_loss"] for row in self.history]

    def is_finished(self) -> bool:
        """Return whether `max_epochs` is reached or early stopping ends the training."""
        if len(self.history) >= self.config.max_epochs:
            return True
        if self.config.patience == 0:
            return False
        losses = self.monitored_losses()
        return stopping_epoch(losses, self.config.patience, self.config.min_delta) is not None

    def best_model(self) -> VAE:
        """Return the model with the weights of the best epoch, on the CPU, in evaluation mode."""
        self.model.load_state_dict(self.best)
        return self.model.cpu().eval()

    def run_epoch(self, validation_images: Tensor) -> None:
        """Train on every image once, measure the validation loss, add a row to the history."""
        start, epoch = time.perf_counter(), len(self.history) + 1
        row = {"epoch": epoch}
        with seeded_global_generator(self.device, self.config.seed, epoch, LAYERS):
            row |= add_prefix("train", self.train_epoch(epoch))
        if self.config.learns_variance:
            self.set_decoder_variance(epoch)
        validation = measure(self.model, validation_images, self.config)
        if not math.isfinite(validation["loss"]):
            raise self.divergence_error("the validation loss", epoch, "after its last step")
        row |= add_prefix("validation", validation)
        row["seconds"] = time.perf_counter() - start
        self.history.append(row)
        if best_epoch(self.monitored_losses()) == epoch:
            state = self.model.state_dict()
            self.best = {name: value.cpu().clone() for name, value in state.items()}

    def train_epoch(self, epoch: int) -> dict[str, float]:
        """Train on every image once; return loss, reconstruction and KL, means over the images."""
        config, n = self.config, len(self.images)
        self.model.train()
        order = torch.randperm(n, generator=self.generator(epoch, ORDER))
        flipped = torch.rand(n, generator=self.generator(epoch, FLIPS)) < 0.5
        flipped = flipped.to(self.device)
        noise = self.generator(epoch, NOISE)
        batches = order.to(self.device).split(config.params.batch_size)
        sums = torch.zeros(len(batches), 3, device=self.device)

        description = f"{self.model.title} {config.params.name} epoch {epoch}"
        bar = progress_bar(batches, desc=description, unit="batch")
        for step, indices in enumerate(bar):
            progress = (epoch - 1 + step / len(batches)) / config.max_epochs
            images = self.images[indices]
            if config.flip:
                mirrored = images.flip(-1)
                images = torch.where(flipped[indices, None, None, None], mirrored, images)
            sums[step] = self.train_step(images, progress, noise)
            # Reading a value makes the host wait for a GPU, so it is done only now and then.
            if step % CHECK_EVERY == CHECK_EVERY - 1 or step == len(batches) - 1:
                self.check_finite(sums[: step + 1], epoch)
                bar.set_postfix_str(f"loss {sums[step, 0] / len(indices):.1f}", refresh=False)
        loss, reconstruction, kl = (sums.cpu().double().sum(0) / n).tolist()
        if config.learns_variance:
            values = math.prod(self.model.image_shape)
            constant = values / 2 * (math.log(2 * math.pi * reconstruction / values) + 1)
            loss = constant + config.beta * kl
        elif config.kl_warmup > 0:
            loss = reconstruction + config.beta * kl
        return {"loss": loss, "reconstruction": reconstruction, "kl": kl}

    def train_step(self, images: Tensor, progress: float, noise: Generator) -> Tensor:
        """Take one optimizer step on uint8 images; return the sums of the ELBO and its parts, [3].

        `progress` is the share of `max_epochs` that lies before this step.
        """
        config = self.config
        self.optimizer.param_groups[0]["lr"] = learning_rate(config, progress)
        batch = self.model.to_unit_interval(images)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            decoded, mu, logvar = self.model(batch, noise)
        variance = None
        if config.learns_variance:
            # The variance with the lowest loss on this batch (Rybkin et al. 2021). Its own
            # gradient is zero there, so it is a constant for the other weights.
            variance = (decoded.detach() - batch).square().mean()
        beta = kl_weight(config, progress)
        parts = elbo(decoded, batch, mu, logvar, beta, config.reduction, variance)
        self.optimizer.zero_grad()
        parts.total.mean().backward()
        self.optimizer.step()
        return torch.stack(parts).detach().sum(1)

    def set_decoder_variance(self, epoch: int) -> None:
        """Set the decoder's variance to the mean squared error of a value of training images.

        This is its maximum-likelihood estimate for the present weights. Raises TrainingDiverged
        where the error is so small that 8-bit images have no density.
        """
        images = self.images[:VARIANCE_IMAGES]
        error = evaluate(self.model, images, seed=epoch)["reconstruction"]
        variance = error / math.prod(self.model.image_shape)
        if not variance > MIN_VARIANCE:
            raise TrainingDiverged(
                f"the decoder variance fell to {variance:.1e} in epoch {epoch}, below that of "
                f"rounding to 8 bits ({MIN_VARIANCE:.1e}): the images are reconstructed exactly; "
                "give images that vary, or decoder_variance 0.5"
            )
        self.model.decoder_variance.fill_(variance)

    def check_finite(self, sums: Tensor, epoch: int) -> None:
        """Raise TrainingDiverged where one of the steps so far, [steps, 3], is not finite."""
        finite = sums.isfinite().all(1)
        if not finite.all():
            first = int(finite.int().argmin()) + 1
            raise self.divergence_error("the loss", epoch, f"at step {first}")

    def divergence_error(self, value: str, epoch: int, where: str) -> TrainingDiverged:
        """Return the error that says where the training diverged and what was good before."""
        good = "no epoch was finished before"
        if self.history:
            last = self.history[-1]
            good = (
                f"epoch {epoch - 1} was still good: training loss {last['train_loss']:.2f}, "
                f"validation loss {last['validation_loss']:.2f}"
            )
        return TrainingDiverged(
            f"{value} is infinite or not a number in epoch {epoch}, {where} ({good}); "
            "choose a smaller learning rate"
        )

    def generator(self, epoch: int, use: int) -> Generator:
        """Return the generator of one use in one epoch."""
        return seeded_generator(self.config.seed, epoch, use)


def initial_model(config: Config, image_shape: tuple[int, int, int]) -> VAE:
    """Build the model with initial weights that depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return build_model(config, image_shape)


def build_model(config: Config, image_shape: tuple[int, int, int]) -> VAE:
    """Build the model of a configuration for images (C, H, W)."""
    model_class, latent_dim = MODELS[config.model], config.params.latent_dim
    if config.dropout > 0:
        model = model_class(latent_dim, image_shape, dropout=config.dropout)
    else:
        model = model_class(latent_dim, image_shape)
    if config.learns_variance:
        model.decoder_variance = torch.tensor(0.5)
    return model


def make_optimizer(config: Config, model: VAE) -> torch.optim.Optimizer:
    """Return Adam, or AdamW where there is weight decay."""
    rate = config.params.learning_rate
    if config.weight_decay > 0:
        return torch.optim.AdamW(
            model.parameters(), lr=rate, weight_decay=config.weight_decay, fused=True
        )
    return torch.optim.Adam(model.parameters(), lr=rate, fused=True)


def learning_rate(config: Config, progress: float) -> float:
    """Return the learning rate when the share `progress` of `max_epochs` is done.

    The schedule "cosine" decays it to 0 (Loshchilov & Hutter 2017, arXiv:1608.03983, without
    restarts). Over the share `rate_warmup` it rises linearly from 0, as a factor on the schedule.
    """
    rate = config.params.learning_rate
    if config.schedule == "cosine":
        rate = rate * (1 + math.cos(math.pi * progress)) / 2
    if progress < config.rate_warmup:
        rate *= progress / config.rate_warmup
    return rate


def kl_weight(config: Config, progress: float) -> float:
    """Return the weight of the KL term when the share `progress` of `max_epochs` is done.

    Over the share `kl_warmup` it rises linearly from 0 to `beta` (Bowman et al. 2016,
    arXiv:1511.06349).
    """
    if progress < config.kl_warmup:
        return config.beta * progress / config.kl_warmup
    return config.beta


def stopping_epoch(losses: Sequence[float], patience: int, min_delta: float) -> int | None:
    """Return the epoch, counted from 1, after which early stopping ends the training, or None.

    An epoch is progress if its loss is more than `min_delta` below that of the last epoch that was
    progress. The training stops after `patience` epochs in a row without progress.
    """
    reference, waiting = math.inf, 0
    for epoch, loss in enumerate(losses, start=1):
        if loss < reference - min_delta:
            reference, waiting = loss, 0
        else:
            waiting += 1
        if waiting == patience:
            return epoch
    return None


def best_epoch(losses: Sequence[float]) -> int:
    """Return the epoch of the lowest loss, counted from 1; the first of several."""
    return 1 + min(range(len(losses)), key=losses.__getitem__)


def solve(
    config: Config, train_images: Tensor, validation_images: Tensor
) -> tuple[VAE, dict[str, float]]:
    """Compute a model that has a closed form; return it and the single row of its history."""
    start = time.perf_counter()
    model = initial_model(config, tuple(train_images.shape[1:]))
    model.fit(train_images, closed_form_variance(config, model))
    row = {"epoch": 1}
    row |= add_prefix("train", measure(model, train_images, config))
    row |= add_prefix("validation", measure(model, validation_images, config))
    return model, row | {"seconds": time.perf_counter() - start}


def closed_form_variance(config: Config, model: VAE) -> float | None:
    """Return the decoder variance at which the closed form minimizes the loss; None: learned.

    Squared error + beta * KL is, up to a factor and a constant, the loss of a Gaussian decoder of
    variance beta / 2. With the reduction "mean" the squared error is divided by the number of
    values D of an image, which is the same as a beta that is D times as large.
    """
    if config.learns_variance:
        if config.beta != 1:
            raise ValueError(
                f"beta is {config.beta}; the {model.title} with a learned decoder variance has a "
                "closed form only for beta 1"
            )
        return None
    beta = config.beta
    if config.reduction == "mean":
        beta *= math.prod(model.image_shape)
    return beta / 2


def measure(model: VAE, images: Tensor, config: Config) -> dict[str, float]:
    """Return loss, reconstruction and KL of uint8 images under the training's own objective."""
    measured = evaluate(model, images, beta=config.beta, reduction=config.reduction)
    return {name: measured[name] for name in ("loss", "reconstruction", "kl")}


def add_prefix(prefix: str, values: dict[str, float]) -> dict[str, float]:
    """Return the values with `prefix_` before each name."""
    return {f"{prefix}_{name}": value for name, value in values.items()}


def seeded_generator(*seed: int) -> Generator:
    """Return a generator seeded from integers that together name its use.

    It is always on the CPU, so that a training on a GPU uses the same random numbers.
    """
    mixed = np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]
    return Generator().manual_seed(int(mixed) >> 1)


@contextmanager
def seeded_global_generator(device: torch.device, *seed: int) -> Iterator[None]:
    """Seed torch's global generator, which layers such as dropout use, and restore it afterwards.

    The seed depends on the run and the epoch, so that such layers do the same after a restart.
    """
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        mixed = np.random.SeedSequence(seed).generate_state(1)[0]
        torch.manual_seed(int(mixed))
        yield
