"""The study's claims, each beside the numbers that confirm or refute it."""

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple

from vae_core.models import MODELS
from vae_core.results import Result, Table

LOWER_LOSS = "the CVAE reaches a lower loss"
Runs = dict[tuple[str, str], Result]  # of one seed, by parameter set and model

# Student's t, two-sided 95 %, for 1, 2, 3 ... degrees of freedom.
T95 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)


class Interval(NamedTuple):
    """A mean over seeds and half the width of its 95 % confidence interval (Student's t)."""

    mean: float
    half: float

    def __str__(self) -> str:
        digits = 1 if abs(self.mean) >= 1 else 2
        half = "" if math.isinf(self.half) else f" ± {self.half:.{digits}f}"
        return f"{self.mean:.{digits}f}{half}"


def interval(values: Sequence[float]) -> Interval:
    """Return the mean of the seeds' values and its 95 % interval; infinite for a single seed."""
    n = len(values)
    if n == 1:
        return Interval(values[0], math.inf)
    t = T95[n - 2] if n - 2 < len(T95) else T95[-1]
    return Interval(statistics.fmean(values), t * statistics.stdev(values) / math.sqrt(n))


def verdict(difference: Interval) -> str:
    """Say whether a difference that a claim expects to be positive is so."""
    if math.isinf(difference.half):
        return "open: one seed"
    if abs(difference.mean) <= difference.half:
        return "not shown"
    return "holds" if difference.mean > 0 else "does not hold"


def claims_table(results: Iterable[Result]) -> Table:
    """Put each claim of the study beside the difference that it is about.

    A claim says that one figure is larger than another. The difference is taken seed by seed and
    averaged; a claim holds where the 95 % interval of that mean lies above zero. The intervals
    are not corrected for their number. Claims that the results say nothing about are left out.
    """
    by_seed: dict[int, dict[tuple[str, str], Result]] = {}
    for row in results:
        by_seed.setdefault(row["seed"], {})[row["params"], row["model"]] = row
    sets = sorted({params for runs in by_seed.values() for params, _ in runs})
    rows = []

    def compare(claim: str, what: str, difference: Callable[[Runs], float]) -> None:
        values = []
        for runs in by_seed.values():
            with suppress(KeyError):  # not every set or model was trained with this seed
                values.append(difference(runs))
        values = [value for value in values if not math.isnan(value)]
        if values:
            found = interval(values)
            rows.append([claim, what, len(values), found, verdict(found)])

    def over_the_sets(runs: Runs, model: str) -> float:
        losses = [runs[params, model]["test_loss"] for params in sets]
        return max(losses) - min(losses)

    def fall(column: str, larger: tuple[str, str], smaller: tuple[str, str]):
        return lambda runs: runs[larger][column] - runs[smaller][column]

    for params in sets:
        compare(
            LOWER_LOSS,
            f"{params}: test loss, FC-VAE − CVAE",
            fall("test_loss", (params, "fc"), (params, "conv")),
        )
    for params in sets:
        compare(
            "the CVAE stops earlier",
            f"{params}: epochs, FC-VAE − CVAE",
            fall("epochs", (params, "fc"), (params, "conv")),
        )
    for params in sets:
        if params != "p2":
            compare(
                "p2 suits the FC-VAE best",
                f"test loss of the FC-VAE, {params} − p2",
                fall("test_loss", (params, "fc"), ("p2", "fc")),
            )
    if sets[1:]:
        compare(
            "the CVAE is stable across the sets",
            "largest − smallest test loss of the sets, FC-VAE − CVAE",
            lambda runs: over_the_sets(runs, "fc") - over_the_sets(runs, "conv"),
        )
    for model in MODELS:
        compare(
            "p1 oscillates, p2 is steadier",
            f"oscillation of the {MODELS[model].title}, p1 − p2",
            fall("oscillation", ("p1", model), ("p2", model)),
        )
    return Table(["claim", "measured (nats or epochs)", "seeds", "difference", "verdict"], rows)
