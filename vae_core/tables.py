"""Results and claims as pandas data frames."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from vae_core.checkpoints import PARTS, History, Run
from vae_core.data import Dataset
from vae_core.evaluation import active_dimensions, class_accuracy, unevenness
from vae_core.latent import posterior_means, prior_draws
from vae_core.models import MODELS
from vae_core.storage import in_one_line, write
from vae_core.training import Config

# What the study published for CIFAR-10: epochs to stop and average loss in nats per image.
PUBLISHED = {
    ("p1", "conv"): (18, 74.7),
    ("p1", "fc"): (40, 80.7),
    ("p2", "conv"): (21, 74.9),
    ("p2", "fc"): (33, 78.2),
    ("p3", "conv"): (15, 75.4),
    ("p3", "fc"): (23, 82.6),
}
BOTH = ("conv", "fc")
LADDER = ("fc", "fc-conv", "conv-fc", "local", "conv")
TUNING = 10  # the seed of the runs that tell which learning rate is best
LOWER_LOSS = "the CVAE reaches a lower loss"
IDENTITY = ["dataset", "model", "params", "seed", "beta", "reduction", "schedule"]
IDENTITY += ["batch_size", "learning_rate", "latent_dim", "max_epochs"]
COLUMNS = [
    *("dataset", "title", "model", "params", "batch_size", "learning_rate", "latent_dim", "seed"),
    *("beta", "reduction", "schedule", "max_epochs", "epochs", "best_epoch"),
    *(f"{part}_{name}" for part in ("train", "validation", "test") for name in PARTS),
    *("oscillation", "active_dimensions", "unevenness", "class_accuracy"),
    *("seconds_per_epoch", "seconds"),
    *("precision", "device", "threads", "processor"),
    *("rounding", "bound", "vae_core", "torch", "numpy"),
]
TEXTS = {"dataset", "title", "model", "params", "reduction", "schedule", "precision", "device"}
TEXTS |= {"threads", "processor", "vae_core", "torch", "numpy"}


@dataclass(frozen=True)
class Interval:
    """A mean over seeds and half the width of its 95 % confidence interval (Student's t).

    `p` is the probability of a mean so far from 0 where there is no difference.
    """

    mean: float
    half: float
    p: float = 1.0

    def __str__(self) -> str:
        digits = 1 if abs(self.mean) >= 1 else 2
        half = "" if math.isinf(self.half) else f" ± {self.half:.{digits}f}"
        return f"{self.mean:.{digits}f}{half}"

    @property
    def verdict(self) -> str:
        """Whether a difference that a claim expects to be positive is so."""
        if math.isinf(self.half):
            return "open: one seed"
        if self.p > 0.05:
            return "not shown"
        return "holds" if self.mean > 0 else "does not hold"


def interval(values: Sequence[float]) -> Interval:
    """Return the mean of the seeds' values and its 95 % interval; infinite for a single seed."""
    n = len(values)
    if n == 1:
        return Interval(float(values[0]), math.inf)
    mean, error = float(np.mean(values)), float(np.std(values, ddof=1) / math.sqrt(n))
    apart = abs(mean) / error if error else math.inf if mean else 0.0
    return Interval(mean, stats.t.ppf(0.975, n - 1) * error, 2 * stats.t.sf(apart, n - 1))


def difference(larger: Sequence[float], smaller: Sequence[float]) -> Interval:
    """Return how much larger the mean of some seeds is than that of others, by Welch's t.

    Seeds are not paired: two models with one seed share the order of the images, and nothing else.
    Infinite where one of the two has a single seed.
    """
    apart = float(np.mean(larger) - np.mean(smaller))
    if min(len(larger), len(smaller)) == 1:
        return Interval(apart, math.inf)
    test = stats.ttest_ind(larger, smaller, equal_var=False)
    found = test.confidence_interval()
    return Interval(apart, float(found.high - found.low) / 2, float(test.pvalue))


def holm(found: Iterable[Interval]) -> list[Interval]:
    """Return intervals with the p that counts where so many are asked about at once (Holm 1979)."""
    adjusted, least = list(found), 0.0
    for rank, place in enumerate(sorted(range(len(adjusted)), key=lambda at: adjusted[at].p)):
        least = max(least, min(1.0, (len(adjusted) - rank) * adjusted[place].p))
        adjusted[place] = replace(adjusted[place], p=least)
    return adjusted


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Return the mean and, over several values, the standard deviation, as in "74.1 ± 0.3"."""
    deviation = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{deviation}"


def result(run: Run, dataset: Dataset | None = None) -> dict[str, Any]:
    """Put a run into one flat row with the names in `COLUMNS`.

    Losses are those of the run's own objective (its `beta` and `reduction`), for the study's loss
    in nats per image; those of the training and validation part are of the best epoch. Where the
    data set is given, the active dimensions are counted over its test images, and `class_accuracy`
    is that of a linear probe on mu, where the classes are known.
    `unevenness` is that of straight lines between 50 pairs of draws. Of a published run, `rounding`
    is what its rounded weights change in its test loss, and `bound` the importance-weighted bound.
    """
    summary, record = run.summary, run.record
    ends = (prior_draws(run.model, 50, seed) for seed in (1, 2))
    values = {
        **vars(run.config),
        **vars(run.config.params),
        **record,
        **record["versions"],
        **summary,
        "dataset": run.dataset["folder"],
        "title": run.dataset["title"],
        "params": run.config.params.name,
        "oscillation": round(oscillation(run.history), 4),
        "active_dimensions": dataset and active_dimensions(run.model, dataset.test),
        "class_accuracy": dataset and class_accuracy(partial(posterior_means, run.model), dataset),
        "unevenness": round(unevenness(run.model, *ends).mean().item(), 3),
        "threads": "+".join(map(str, record["threads"])),
        **{name: (record["published"] or {}).get(name) for name in ("rounding", "bound")},
        "seconds_per_epoch": round(summary["seconds_per_epoch"], 2),
        "seconds": round(summary["seconds"], 1),
    }
    for part in ("train", "validation", "test"):
        values |= {f"{part}_{name}": round(summary[part][name], 4) for name in PARTS}
    return {name: values[name] for name in COLUMNS}


def write_results(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write rows of `result` as a table that spreadsheets read; OSError where that fails."""
    frame = pd.DataFrame(list(rows), columns=COLUMNS).astype({"active_dimensions": "Int64"})
    write(path, frame.to_csv(index=False, lineterminator="\n"))


def read_results(path: Path) -> pd.DataFrame:
    """Read what `write_results` wrote.

    Raises FileNotFoundError where nothing is, and ValueError for what is no such table.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; make study or answer writes such a table")
    kinds = {name: str if name in TEXTS else float for name in COLUMNS}
    try:
        frame = pd.read_csv(path, dtype=kinds, float_precision="round_trip")
        if missing := [name for name in COLUMNS if name not in frame]:
            raise ValueError(f"the column {missing[0]} is missing")
        if frame.empty or frame[IDENTITY].isna().any(axis=None):
            raise ValueError("there are no results, or a row does not say which run it is")
        if frame.duplicated(IDENTITY).any():
            raise ValueError("the same run stands there twice")
        if unknown := sorted(set(frame["model"]) - set(MODELS)):
            raise ValueError(f"unknown model {unknown[0]!r}")
        whole = ["batch_size", "latent_dim", "seed", "max_epochs", "epochs", "best_epoch"]
        return frame.astype(dict.fromkeys(whole, int))
    except (ValueError, OSError) as error:
        raise ValueError(
            f"{path}: {in_one_line(error)}; take the table that make study wrote, "
            "or the published one with git checkout"
        ) from error


def of_run(frame: pd.DataFrame, config: Config, folder: str) -> pd.Series:
    """Say of each row whether it is this run's; `folder` is that of its data set's runs."""
    named = {**vars(config), **vars(config.params), "params": config.params.name, "dataset": folder}
    return (frame[IDENTITY] == [named[name] for name in IDENTITY]).all(axis=1)


def with_the_studys_loss(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of runs with both terms summed, none weighted, and a constant rate."""
    summed = (frame["beta"] == 1) & (frame["reduction"] == "sum")
    return frame[summed & (frame["schedule"] == "constant")]


def results_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Gather results of any number of seeds into the study's table: a row for each set and model.

    The losses are those of the best epoch, in nats per image: mean and, over several seeds,
    standard deviation.
    """
    shown = {"epochs": "epochs", "training loss": "train_loss", "test loss": "test_loss"}
    shown |= {"reconstruction": "test_reconstruction", "KL": "test_kl"}
    rows = []
    for (params, model), group in frame.groupby(["params", "model"], sort=True):
        row = {"set": params, "model": MODELS[model].title, "seeds": len(group)}
        row |= {title: spread(group[column]) for title, column in shown.items()}
        if hasattr(MODELS[model], "fit"):
            row["epochs"] = "solved"
        epochs, loss = PUBLISHED.get((params, model), ("–", "–"))
        rows.append(row | {"published epochs": epochs, "published loss": loss})
    return pd.DataFrame(rows).set_index(["set", "model"])


def as_it_is(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of runs on whole data sets with every pixel in its place."""
    return frame[~frame["dataset"].str.contains("permuted|fraction")]


def tuned(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the runs with β 1 at the learning rate that suits their model and data best.

    That is the one with the lowest mean validation loss after the fewest epochs, over the seeds for
    which all were tried. Runs of the seed `TUNING` were made to find it, and are left out.
    """
    chosen = []
    for _, own in frame[frame["beta"] == 1].groupby(["dataset", "model"], sort=False):
        tried = own[own["epochs"] == own["epochs"].min()]
        tried = tried.pivot(index="learning_rate", columns="seed", values="validation_loss")
        best = tried.dropna(axis="columns").mean(axis="columns").idxmin()
        chosen.append(own[(own["learning_rate"] == best) & (own["seed"] != TUNING)])
    return pd.concat(chosen)


def shares(frame: pd.DataFrame, option: str) -> pd.Series:
    """Return the "permuted" or "fraction" of each row's data set; NaN where all is as usual."""
    return frame["dataset"].str.extract(rf"-{option}([\d.]+)")[0].astype(float)


def by_permutation(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the test losses by model (rows) and share of the pixels that are elsewhere (columns).

    Each is the list of its seeds', at the smallest budget of its model. The rows are rungs: from
    fully connected to convolutional.
    """
    whole = shares(frame, "fraction").fillna(1)
    frame = frame[frame["model"].isin(LADDER) & (whole == whole.max())]
    smallest = frame[frame["epochs"] == frame.groupby("model")["epochs"].transform("min")]
    share = shares(smallest, "permuted").fillna(0).rename("share")
    found = smallest.groupby(["model", share])["test_loss"].agg(list).unstack()
    return found.reindex([name for name in LADDER if name in found.index])


def at_equal_budgets(frame: pd.DataFrame, cost: Mapping[str, float], unit: str) -> pd.DataFrame:
    """Compare the two models at each budget of both: test losses, and how much lower the CVAE's is.

    `cost` is that of an epoch of each, in `unit`, which heads the column of the budgets; those that
    differ by less than a tenth are equal. The difference is that of `difference`. The minutes are
    the CVAE's and the FC-VAE's on a processor, by an epoch's median there.
    """
    rows, runs = [], [frame[frame["model"] == name] for name in BOTH]
    losses = (own.groupby("epochs")["test_loss"].agg(list).items() for own in runs)
    seconds = frame.groupby(["processor", "model"])["seconds_per_epoch"].median().unstack()
    minutes = seconds.reindex(columns=BOTH).dropna() / 60
    for (epochs, conv), (others, fc) in product(*losses):
        spent = epochs * cost["conv"]
        if abs(others * cost["fc"] / spent - 1) < 0.1:
            seeds = len(conv) if len(conv) == len(fc) else f"{len(conv)} and {len(fc)}"
            row = [f"{spent:.3g}", epochs, others, spread(conv), spread(fc), seeds]
            times = (minutes * (epochs, others)).to_numpy()
            times = [f"{one:.1f} and {other:.1f}" for one, other in times]
            rows.append([*row, difference(fc, conv), *times])
    columns = [f"{MODELS[name].title}, {what}" for what in ("epochs", "loss") for name in BOTH]
    columns = [unit, *columns, "seeds", "difference"]
    return pd.DataFrame(rows, columns=columns + [f"minutes, {name}" for name in minutes.index])


def claims_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Put each claim of the study beside the difference that it is about.

    A claim says that one figure is larger than another. The difference is taken seed by seed and
    averaged (an `Interval`); a verdict is at 5 %, corrected for the tests of its claim (`holm`).
    Claims that the results say nothing about are left out.
    """
    sets, rows = sorted(frame["params"].unique()), []

    def of(column: str, params: str, model: str) -> pd.Series:
        chosen = frame[(frame["params"] == params) & (frame["model"] == model)]
        return chosen.set_index("seed")[column]

    def compare(claim: str, measured: str, difference: pd.Series) -> None:
        values = difference.dropna().tolist()
        if values:
            rows.append([claim, measured, len(values), interval(values)])

    for claim, column in ((LOWER_LOSS, "test_loss"), ("the CVAE stops earlier", "epochs")):
        for params in sets:
            fall = of(column, params, "fc") - of(column, params, "conv")
            compare(claim, f"{params}: {column.replace('_', ' ')}, FC-VAE − CVAE", fall)
    for params in sets:
        if params != "p2":
            fall = of("test_loss", params, "fc") - of("test_loss", "p2", "fc")
            compare("p2 suits the FC-VAE best", f"test loss of the FC-VAE, {params} − p2", fall)
    if sets[1:]:
        ranges = []
        for model in ("fc", "conv"):
            losses = pd.concat([of("test_loss", params, model) for params in sets], axis=1)
            ranges.append((losses.max(axis=1) - losses.min(axis=1))[losses.notna().all(axis=1)])
        measured = "largest − smallest test loss of the sets, FC-VAE − CVAE"
        compare("the CVAE is stable across the sets", measured, ranges[0] - ranges[1])
    for model in ("fc", "conv"):
        fall = of("oscillation", "p1", model) - of("oscillation", "p2", model)
        measured = f"oscillation of the {MODELS[model].title}, p1 − p2"
        compare("p1 oscillates, p2 is steadier", measured, fall)
    columns = ["claim", "measured (nats or epochs)", "seeds", "difference"]
    table = pd.DataFrame(rows, columns=columns)
    table["difference"] = table.groupby("claim")["difference"].transform(holm)
    table["verdict"] = [found.verdict for found in table["difference"]]
    return table.set_index("claim")


def oscillation(history: History) -> float:
    """Measure how much the validation loss jumps about its own trend, in nats per image.

    It is the standard deviation of the jumps where they are independent and the trend is locally
    straight: the root mean square of the losses' second differences over the square root of 6.
    The first third, where the loss falls steeply, is left out. NaN for fewer than 15 epochs, which
    are nothing but steep.
    """
    losses = [row["validation_loss"] for row in history][len(history) // 3 :]
    if len(history) < 15:
        return math.nan
    return float(np.sqrt(np.mean(np.diff(losses, n=2) ** 2) / 6))
