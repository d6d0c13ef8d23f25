"""Pictures from results, all in one style: grids, strips, curves, spectra."""

import math
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from vae_core.checkpoints import Run

COLOURS = {"fc": "#d1495b", "conv": "#00798c"}
LINES = ("-", "--", ":", "-.")
LABELS = {"loss": "loss", "reconstruction": "reconstruction", "kl": "KL"}
STYLE = {
    "figure.dpi": 100,
    "savefig.dpi": 160,
    "savefig.bbox": "tight",
    "figure.constrained_layout.use": True,
    "font.size": 11,
    "axes.titlesize": 12,
    "figure.titlesize": 13,
    "figure.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
}


def picture_grid(pictures: Tensor, title: str, columns: int = 8) -> Figure:
    """Show pictures [N, 3, H, W], in [0, 1] or uint8, in a grid, row by row."""
    rows = math.ceil(len(pictures) / columns)
    return picture_rows(
        {f"row {row}": pictures[row * columns : (row + 1) * columns] for row in range(rows)},
        title,
        row_labels=False,
    )


def picture_rows(
    rows: Mapping[str, Tensor],
    title: str,
    column_labels: Sequence[str] = (),
    row_labels: bool = True,
) -> Figure:
    """Show a labelled row for each entry; the pictures of all rows stand in columns.

    Args:
        rows: pictures [N, 3, H, W], in [0, 1] or uint8, by the row's label.
        title: what is seen, on which data and by which model.
        column_labels: what each column is, above the first row.
    """
    columns = max(len(pictures) for pictures in rows.values())
    size = (columns + 1.2 * row_labels, len(rows) + 0.5 + 0.3 * bool(column_labels))
    with plt.rc_context({**STYLE, "axes.grid": False}):
        figure, axes = plt.subplots(len(rows), columns, squeeze=False, figsize=size)
        figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
        for axis in axes.flat:
            axis.set(xticks=[], yticks=[], frame_on=False)
        for (label, pictures), line in zip(rows.items(), axes, strict=True):
            for picture, axis in zip(pictures, line, strict=False):
                axis.imshow(picture.detach().cpu().movedim(0, -1), interpolation="nearest")
            if row_labels:
                line[0].set_ylabel(label, rotation=0, ha="right", va="center")
        for label, axis in zip(column_labels, axes[0], strict=False):
            axis.set_title(label, fontsize=9)
        figure.suptitle(title)
    return figure


def interpolation_rows(strips: Mapping[str, Tensor], title: str) -> Figure:
    """Show strips [steps, 3, H, W] of `latent.interpolate`, each by its label, alpha above."""
    steps = max(len(strip) for strip in strips.values())
    alphas = [f"α = {step / (steps - 1):.2f}" for step in range(steps)]
    return picture_rows(strips, title, alphas)


def loss_curves(runs: Mapping[str, Run], title: str, training: bool = True) -> Figure:
    """Show loss, reconstruction and KL of every epoch of runs, by their label in the legend.

    Strong lines are means over the validation pictures after the epoch, faint ones, where
    `training` is true, over the training pictures while they are learned. The colour is the
    model, the line's style the parameter set; a dot marks the best epoch, whose weights are kept.
    The first epoch, which would flatten all others, is left out of more than five.
    """
    sets = list(dict.fromkeys(run.config["params"]["name"] for run in runs.values()))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 3, figsize=(12, 3.8))
        for axis, (part, label) in zip(axes, LABELS.items(), strict=True):
            for name, run in runs.items():
                shown = run.history[1 if len(run.history) > 5 else 0 :]
                epochs = [row["epoch"] for row in shown]
                style = {
                    "color": COLOURS[run.config["model"]],
                    "linestyle": LINES[sets.index(run.config["params"]["name"]) % len(LINES)],
                }
                held_out = [row[f"validation_{part}"] for row in shown]
                axis.plot(epochs, held_out, label=name, **style)
                if training:
                    learned = [row[f"train_{part}"] for row in shown]
                    axis.plot(epochs, learned, **style, alpha=0.4)
                best = run.summary["best_epoch"]
                if best in epochs:
                    axis.plot(best, held_out[epochs.index(best)], "o", color=style["color"])
            axis.set(xlabel="epoch", title=label)
            axis.xaxis.get_major_locator().set_params(integer=True)
        axes[0].set_ylabel("nats per picture")
        faint = "faint: training, " if training else ""
        axes[0].legend(title=f"validation ({faint}dot: kept)", fontsize=9, title_fontsize=9)
        figure.suptitle(title)
    return figure


def kl_spectrum(kl: Mapping[str, Tensor], title: str) -> Figure:
    """Show the KL divergence of each latent dimension, [latent_dim] nats, largest first.

    The axis is logarithmic, so what is below 0.000001 nats is shown there.
    """
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(8, 3.8))
        for label, values in kl.items():
            axis.plot(np.sort(values.numpy())[::-1] + 1e-6, label=label)
        axis.set(xlabel="latent dimension, the most used first", yscale="log")
        axis.set_ylabel("KL, nats per picture")
        axis.legend()
        figure.suptitle(title)
    return figure
