"""Comparisons at equal budgets: tuned runs, permuted images, and the intermediate models."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vae_core import figures
from vae_core.intervals import format_mean_sd, welch_difference
from vae_core.models import MODELS

COMPARED = ("conv", "fc")
# From fully connected to convolutional, with the intermediate models.
LADDER = ("fc", "fc-conv", "conv-fc", "local", "conv")
TUNING_SEED = 10  # of the runs that were made only to choose a learning rate
BUDGET_TOLERANCE = 0.1  # budgets that differ by a smaller share are equal


def on_full_images(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the runs on whole data sets whose pixels are all in their places."""
    return frame[~frame["dataset"].str.contains("permuted|fraction")]


def dataset_option(frame: pd.DataFrame, option: str) -> pd.Series:
    """Return the "permuted" or the "fraction" of each run's data set, NaN where it has none.

    >>> frame = pd.DataFrame({"dataset": ["shapes", "shapes-fraction0.2"]})
    >>> dataset_option(frame, "fraction").tolist()
    [nan, 0.2]
    """
    return frame["dataset"].str.extract(rf"-{option}([\d.]+)")[0].astype(float)


def tuned_runs(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the runs with β = 1 at the best learning rate of their model and data set.

    The best rate has the lowest mean validation loss at the smallest number of epochs, over the
    seeds for which all rates were tried. Runs of `TUNING_SEED` count for this choice only and are
    not returned.

    >>> runs = [(1e-3, TUNING_SEED, 80.0), (2e-3, TUNING_SEED, 76.0), (2e-3, 0, 76.5)]
    >>> frame = pd.DataFrame(runs, columns=["learning_rate", "seed", "validation_loss"])
    >>> tuned_runs(frame.assign(dataset="shapes", model="conv", beta=1, epochs=8))["seed"].tolist()
    [0]
    """
    chosen = []
    for _, runs in frame[frame["beta"] == 1].groupby(["dataset", "model"], sort=False):
        shortest = runs[runs["epochs"] == runs["epochs"].min()]
        losses = shortest.pivot(index="learning_rate", columns="seed", values="validation_loss")
        best_rate = losses.dropna(axis="columns").mean(axis="columns").idxmin()
        at_best_rate = runs["learning_rate"] == best_rate
        chosen.append(runs[at_best_rate & (runs["seed"] != TUNING_SEED)])
    return pd.concat(chosen)


def losses_by_permutation(frame: pd.DataFrame) -> pd.DataFrame:
    """Return lists of test losses, one loss a seed, by model and share of permuted pixels.

    Rows are the models of `LADDER` that have runs, columns the shares, 0 first. The runs are those
    with the largest part of the training images, at the fewest epochs of their model.
    """
    fraction = dataset_option(frame, "fraction").fillna(1)
    runs = frame[frame["model"].isin(LADDER) & (fraction == fraction.max())]
    shortest = runs[runs["epochs"] == runs.groupby("model")["epochs"].transform("min")]
    share = dataset_option(shortest, "permuted").fillna(0).rename("share")
    losses = shortest.groupby(["model", share])["test_loss"].agg(list).unstack()
    return losses.reindex([model for model in LADDER if model in losses.index])


def equal_budgets_table(frame: pd.DataFrame, cost: Mapping[str, float], unit: str) -> pd.DataFrame:
    """Return a table with a row for each budget that both models of `COMPARED` have.

    Args:
        frame: a row for each run.
        cost: of an epoch of each model, in `unit`. A budget is the cost times the epochs; budgets
            within `BUDGET_TOLERANCE` are equal.
        unit: the title of the column of budgets.

    Losses are test losses, mean ± standard deviation. "difference" is the FC-VAE's - the CVAE's,
    an `Interval` by Welch's t. There is a column of minutes for each processor that trained both
    models, "CVAE and FC-VAE", from the median time of an epoch.
    """
    conv_losses, fc_losses = (_losses_by_epochs(frame, model) for model in COMPARED)
    seconds = frame.groupby(["processor", "model"])["seconds_per_epoch"].median().unstack()
    seconds = seconds.reindex(columns=COMPARED).dropna()
    conv, fc = (MODELS[model].title for model in COMPARED)
    columns = [unit, f"{conv}, epochs", f"{fc}, epochs", f"{conv}, loss", f"{fc}, loss"]
    columns += ["seeds", "difference", *(f"minutes, {processor}" for processor in seconds.index)]
    rows = []
    for conv_epochs, conv_seeds in conv_losses.items():
        for fc_epochs, fc_seeds in fc_losses.items():
            budget = conv_epochs * cost["conv"]
            if abs(fc_epochs * cost["fc"] / budget - 1) >= BUDGET_TOLERANCE:
                continue
            row = [f"{budget:.3g}", conv_epochs, fc_epochs]
            row += [format_mean_sd(conv_seeds), format_mean_sd(fc_seeds)]
            row += [_seed_count(conv_seeds, fc_seeds), welch_difference(fc_seeds, conv_seeds)]
            for conv_seconds, fc_seconds in seconds.to_numpy():
                conv_minutes = conv_epochs * conv_seconds / 60
                fc_minutes = fc_epochs * fc_seconds / 60
                row.append(f"{conv_minutes:.1f} and {fc_minutes:.1f}")
            rows.append(row)
    return pd.DataFrame(rows, columns=columns)


def _losses_by_epochs(frame: pd.DataFrame, model: str) -> pd.Series:
    return frame[frame["model"] == model].groupby("epochs")["test_loss"].agg(list)


def _seed_count(conv_seeds: Sequence[float], fc_seeds: Sequence[float]) -> int | str:
    if len(conv_seeds) == len(fc_seeds):
        return len(conv_seeds)
    return f"{len(conv_seeds)} and {len(fc_seeds)}"


def ladder_figure(losses: pd.DataFrame, linear: float, title: str) -> Figure:
    """Draw test losses from fully connected to convolutional, in order and with permuted pixels.

    Args:
        losses: of `losses_by_permutation`, with the columns 0 and 1.
        linear: test loss of the linear VAE, which no permutation changes.
        title: of the data set.
    """
    heading = f"Five models at equal compute, {title} (dots: seeds, bars: 95 % intervals)"
    figure, axes = figures.panels(2, heading, (14, 5.5))
    in_order, permuted = axes[0]
    _draw_ladder(in_order, losses[0.0], linear)
    in_order.set_title("pixels in order")
    in_order.legend(loc="upper right")
    _draw_ladder(permuted, losses[1.0], linear)
    permuted.set_title("pixels permuted (on another scale)")
    permuted.legend(loc="upper left")
    return figure


def _draw_ladder(axis: Axes, losses: pd.Series, linear: float) -> None:
    """Draw the seeds of each model, and the linear VAE as a dashed line."""
    for x, (model, seeds) in enumerate(losses.items()):
        figures.seed_dots(axis, x, seeds, model)
        mean = np.mean(seeds)
        axis.annotate(f"{mean:.1f}", (x + 0.12, mean), va="center", fontsize=12)
    axis.axhline(linear, color=MODELS["linear"].colour, linestyle="--", label="linear VAE")
    axis.set_xticks(range(len(losses)), [_tick_label(model) for model in losses.index], fontsize=10)
    axis.set(ylabel="test loss, nats per image", xlim=(-0.4, len(losses) - 0.4))


def _tick_label(model: str) -> str:
    """Return the model's title on several lines."""
    return MODELS[model].title.replace(", ", ",\n").replace(" c", "\nc")
