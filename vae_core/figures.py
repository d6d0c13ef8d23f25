"""Figures in one style: grids and strips of images, loss curves, spectra, seeds."""

import math
import warnings
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from vae_core.checkpoints import PARTS, Run
from vae_core.latent import interpolate, prior_draws
from vae_core.models import MODELS, VAE
from vae_core.tables import interval

LINES = ("-", "--", ":", "-.")
LABELS = {"loss": "loss", "reconstruction": "reconstruction", "kl": "KL"}
plt.rc("figure", dpi=80, titlesize=13, titleweight="bold")
plt.rc("figure.constrained_layout", use=True)
plt.rc("savefig", dpi=160, bbox="tight")
plt.rc("font", size=11)
plt.rc("axes", titlesize=12, grid=True)
plt.rc("axes.spines", top=False, right=False)
plt.rc("grid", alpha=0.25)
plt.rc("legend", frameon=False)
# Data sets may be named in letters that the font lacks; boxes in a title are no reason to warn.
warnings.filterwarnings("ignore", message="Glyph .* missing from")


def panels(
    columns: int, title: str, size: tuple[float, float], rows: int = 1
) -> tuple[Figure, np.ndarray]:
    """Return a figure of the project's style and its axes [rows, columns], to be drawn on."""
    figure, axes = plt.subplots(rows, columns, squeeze=False, figsize=size)
    figure.suptitle(title)
    return figure, axes


def image_grid(images: Tensor, title: str, columns: int = 8) -> Figure:
    """Show images [N, 3, H, W], in [0, 1] or uint8, in a grid, row by row."""
    return image_rows(dict(enumerate(images.split(columns))), title, row_labels=False)


def image_rows(
    rows: Mapping[object, Tensor],
    title: str,
    column_labels: Sequence[str] = (),
    row_labels: bool = True,
) -> Figure:
    """Show a labelled row for each entry; the images of all rows stand in columns.

    Rows are images [N, 3, H, W], in [0, 1] or uint8, by their label. `title` says what is seen, on
    which data and by which model, `column_labels` what each column is.
    """
    columns = max(len(images) for images in rows.values())
    side = min(1.4, 9.6 / columns)
    size = (side * columns + 1.3 * row_labels, side * len(rows) + 0.5 + 0.3 * bool(column_labels))
    figure, axes = panels(columns, title, size, len(rows))
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[], frame_on=False)
    for (label, images), line in zip(rows.items(), axes, strict=True):
        for image, axis in zip(images, line, strict=False):
            if image.is_floating_point():
                image = image.detach().clamp(0, 1)
            axis.imshow(image.cpu().movedim(0, -1), interpolation="nearest")
        if row_labels:
            line[0].set_ylabel(label, rotation=0, ha="right", va="center")
    for label, axis in zip(column_labels, axes[0], strict=False):
        axis.set_title(label, fontsize=10)
    return figure


def reconstructions(models: Mapping[str, VAE], images: Tensor, title: str) -> Figure:
    """Show uint8 images [N, 3, H, W] above what each model makes of them (posterior means)."""
    rows = {name: model.reconstruct(images) for name, model in models.items()}
    return image_rows({"original": images, **rows}, title)


def samples(models: Mapping[str, VAE], title: str, n: int = 10, seed: int = 0) -> Figure:
    """Show `n` decoded draws from the prior for each model."""
    decoded = {name: model.decode(prior_draws(model, n, seed)) for name, model in models.items()}
    return image_rows(decoded, title)


def strips(strips: Mapping[str, Tensor], title: str) -> Figure:
    """Show strips [steps, 3, H, W] of `interpolate`, each by its label, alpha above."""
    steps = max(len(strip) for strip in strips.values())
    return image_rows(strips, title, [f"α = {step / (steps - 1):.2f}" for step in range(steps)])


def interpolations(models: Mapping[str, VAE], title: str, pairs: int = 1, seed: int = 1) -> Figure:
    """Show strips between pairs of draws from the prior, `pairs` for each model."""
    rows = {}
    for name, model in models.items():
        for pair, ends in enumerate(prior_draws(model, 2 * pairs, seed).split(2), start=1):
            rows[name if pairs == 1 else f"{name}, pair {pair}"] = interpolate(model, *ends)
    return strips(rows, title)


def loss_curves(runs: Mapping[str, Run], title: str, training: bool = True) -> Figure:
    """Show loss, reconstruction and KL of every epoch of runs, by their label in the legend.

    Strong lines are means over the validation images after the epoch, faint ones, where
    `training` is true, over the training images while they are learned. The colour is the
    model, the line's style the parameter set; a dot marks the best epoch, whose weights are kept.
    The first epoch, which would flatten all others, is left out of more than five; a model that was
    solved in one is a level line.
    """
    sets = list(dict.fromkeys(run.config.params.name for run in runs.values()))
    figure, axes = panels(3, title, (12, 3.8))
    for axis, part in zip(axes[0], PARTS, strict=True):
        for name, run in runs.items():
            shown = run.history[1 if len(run.history) > 5 else 0 :]
            epochs = [row["epoch"] for row in shown]
            line = LINES[sets.index(run.config.params.name) % len(LINES)]
            style = {"color": run.model.colour, "linestyle": line}
            held_out = [row[f"validation_{part}"] for row in shown]
            if hasattr(run.model, "fit"):
                axis.axhline(held_out[0], label=name, **style)
                continue
            axis.plot(epochs, held_out, label=name, **style)
            if training:
                axis.plot(epochs, [row[f"train_{part}"] for row in shown], **style, alpha=0.4)
            best = run.summary["best_epoch"]
            if best in epochs:
                axis.plot(best, held_out[epochs.index(best)], "o", color=run.model.colour)
        axis.set(xlabel="epoch", title=LABELS[part])
        axis.xaxis.get_major_locator().set_params(integer=True)
    axes[0, 0].set_ylabel("nats per image")
    faint = "faint: training, " if training else ""
    axes[0, 0].legend(title=f"validation ({faint}dot: kept)", fontsize=9, title_fontsize=9)
    return figure


def kl_spectrum(kl: Mapping[str, Tensor], title: str) -> Figure:
    """Show the KL divergence of each latent dimension, [latent_dim] nats, largest first."""
    figure, axes = panels(1, title, (10, 3.8))
    for index, (label, values) in enumerate(kl.items()):
        nats, line = np.sort(values.numpy())[::-1].clip(1e-6), LINES[index % len(LINES)]
        axes[0, 0].plot(range(1, len(nats) + 1), nats, line, color="black", label=label)
    axes[0, 0].axhline(0.1, color="black", lw=1, alpha=0.4, label="0.1 nats")
    axes[0, 0].set(xlabel="rank of the latent (1: the most nats)", yscale="log")
    axes[0, 0].set_ylabel("KL, nats per image (at least 10⁻⁶)")
    axes[0, 0].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def seed_dots(axis: Axes, place: float, values: Sequence[float], model: str) -> None:
    """Draw a value for each seed as a dot, and their mean with its 95 % interval as a bar."""
    colour, found = MODELS[model].colour, interval(values)
    axis.plot([place] * len(values), values, "o", color=colour, alpha=0.5, zorder=3)
    half = 0 if math.isinf(found.half) else found.half
    axis.errorbar(place, found.mean, half, color=colour, capsize=5, marker="_", markersize=18)


def ladder(losses: pd.DataFrame, linear: float, title: str) -> Figure:
    """Show the test losses of models, which are rungs, on images in order and with pixels permuted.

    `losses` are those of `tables.by_permutation`, a row a model, `title` is that of the data set;
    `linear` is the test loss of the linear VAE, which is the same either way.
    """
    heading = f"Five models at equal compute, {title} (dots: seeds, bars: 95 % intervals)"
    figure, axes = panels(2, heading, (14, 5.5))
    titles = [MODELS[name].title.replace(", ", ",\n").replace(" c", "\nc") for name in losses.index]
    for share, axis in enumerate(axes[0]):
        for place, (name, row) in enumerate(losses.iterrows()):
            seed_dots(axis, place, row[share], name)
            mean = np.mean(row[share])
            axis.annotate(f"{mean:.1f}", (place + 0.12, mean), va="center", fontsize=12)
        axis.axhline(linear, color=MODELS["linear"].colour, linestyle="--", label="linear VAE")
        axis.set_xticks(range(len(losses)), titles, fontsize=10)
        axis.set(ylabel="test loss, nats per image", xlim=(-0.4, len(losses) - 0.4))
        axis.set_title("pixels permuted (on another scale)" if share else "pixels in order")
        axis.legend(loc="upper left" if share else "upper right")
    return figure
