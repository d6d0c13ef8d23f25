"""The original study's results and claims beside ours."""

from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd

from vae_core.intervals import format_mean_sd, holm, mean_interval
from vae_core.models import MODELS


class OriginalResult(NamedTuple):
    """One row of the original study's table, for CIFAR-10."""

    epochs: int  # until early stopping
    loss: float  # average loss in nats per image


# By parameter set and model.
ORIGINAL_RESULTS = {
    ("p1", "conv"): OriginalResult(epochs=18, loss=74.7),
    ("p1", "fc"): OriginalResult(epochs=40, loss=80.7),
    ("p2", "conv"): OriginalResult(epochs=21, loss=74.9),
    ("p2", "fc"): OriginalResult(epochs=33, loss=78.2),
    ("p3", "conv"): OriginalResult(epochs=15, loss=75.4),
    ("p3", "fc"): OriginalResult(epochs=23, loss=82.6),
}

LOWER_LOSS = "the CVAE reaches a lower loss"
STOPS_EARLIER = "the CVAE stops earlier"
BEST_SET = "p2 suits the FC-VAE best"
STABLE = "the CVAE is stable across the sets"
STEADIER = "p1 oscillates, p2 is steadier"

RESULT_COLUMNS = {
    "epochs": "epochs",
    "training loss": "train_loss",
    "test loss": "test_loss",
    "reconstruction": "test_reconstruction",
    "KL": "test_kl",
}


def with_original_loss(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the runs with the original study's loss and a constant learning rate.

    That loss is the squared error plus the KL divergence, both summed, with β = 1.
    """
    original_loss = (frame["beta"] == 1) & (frame["reduction"] == "sum")
    return frame[original_loss & (frame["schedule"] == "constant")]


def results_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the original study's table with our results: a row for each parameter set and model.

    `frame` has a row for each run, of any number of seeds. Losses are in nats per image, at the
    best epoch: mean and, over several seeds, standard deviation. "epochs" is "solved" for a model
    with a closed form, and the original study's columns are "–" where it reports nothing.
    """
    rows = []
    for (params, model), runs in frame.groupby(["params", "model"], sort=True):
        row = {"set": params, "model": MODELS[model].title, "seeds": len(runs)}
        for title, column in RESULT_COLUMNS.items():
            row[title] = format_mean_sd(runs[column])
        if MODELS[model].closed_form:
            row["epochs"] = "solved"
        epochs, loss = ORIGINAL_RESULTS.get((params, model), ("–", "–"))
        row["published epochs"] = epochs
        row["published loss"] = loss
        rows.append(row)
    return pd.DataFrame(rows).set_index(["set", "model"])


@dataclass(frozen=True)
class Group:
    """The runs of one model with one or more parameter sets, and the figure that is compared."""

    model: str
    sets: tuple[str, ...]
    column: str  # of the results table

    def values(self, frame: pd.DataFrame) -> pd.Series:
        """Return the figure by seed, for the seeds of which all parameter sets are there.

        With several sets it is the range over them: the largest value - the smallest.
        """
        runs = frame[(frame["model"] == self.model) & frame["params"].isin(self.sets)]
        by_set = runs.pivot(index="seed", columns="params", values=self.column)
        by_set = by_set.reindex(columns=list(self.sets)).dropna()
        if len(self.sets) == 1:
            return by_set[self.sets[0]]
        return by_set.max(axis="columns") - by_set.min(axis="columns")


@dataclass(frozen=True)
class Claim:
    """A claim of the original study: the figure is larger in one group of runs than in another."""

    text: str
    measured: str  # the difference in words
    larger: Group
    smaller: Group


def list_claims(sets: list[str]) -> list[Claim]:
    """List the claims of the original study that are about these parameter sets."""
    claims = []
    for text, column in ((LOWER_LOSS, "test_loss"), (STOPS_EARLIER, "epochs")):
        for params in sets:
            measured = f"{params}: {column.replace('_', ' ')}, FC-VAE − CVAE"
            fc, conv = Group("fc", (params,), column), Group("conv", (params,), column)
            claims.append(Claim(text, measured, fc, conv))
    p2 = Group("fc", ("p2",), "test_loss")
    for params in sets:
        if params != "p2":
            measured = f"test loss of the FC-VAE, {params} − p2"
            claims.append(Claim(BEST_SET, measured, Group("fc", (params,), "test_loss"), p2))
    if len(sets) > 1:
        measured = "largest − smallest test loss of the sets, FC-VAE − CVAE"
        fc = Group("fc", tuple(sets), "test_loss")
        conv = Group("conv", tuple(sets), "test_loss")
        claims.append(Claim(STABLE, measured, fc, conv))
    for model in ("fc", "conv"):
        measured = f"oscillation of the {MODELS[model].title}, p1 − p2"
        p1, p2 = Group(model, ("p1",), "oscillation"), Group(model, ("p2",), "oscillation")
        claims.append(Claim(STEADIER, measured, p1, p2))
    return claims


def claims_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table of the original study's claims, each with our difference and a verdict.

    `frame` has a row for each run. Differences are paired by seed and averaged (an `Interval`).
    The verdict is at 5 %, corrected for the number of tests of its claim (`holm`). A claim for
    which there are no runs is left out.
    """
    rows = []
    for claim in list_claims(sorted(frame["params"].unique())):
        differences = claim.larger.values(frame) - claim.smaller.values(frame)
        differences = differences.dropna().tolist()  # seeds of one group only
        if differences:
            interval = mean_interval(differences)
            rows.append([claim.text, claim.measured, len(differences), interval])
    columns = ["claim", "measured (nats or epochs)", "seeds", "difference"]
    table = pd.DataFrame(rows, columns=columns)
    table["difference"] = table.groupby("claim")["difference"].transform(holm)
    table["verdict"] = [interval.verdict for interval in table["difference"]]
    return table.set_index("claim")
