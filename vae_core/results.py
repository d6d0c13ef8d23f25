"""What the runs say, in numbers: the study's table, differences, oscillation."""

import base64
import html
import io
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from PIL import Image, ImageOps
from torch import Tensor

from vae_core.checkpoints import History, Run
from vae_core.parameter_sets import ParameterSet
from vae_core.training import best_epoch, stopping_epoch

PUBLISHED = {
    ("p1", "conv"): (18, 74.7),
    ("p1", "fc"): (40, 80.7),
    ("p2", "conv"): (21, 74.9),
    ("p2", "fc"): (33, 78.2),
    ("p3", "conv"): (15, 75.4),
    ("p3", "fc"): (23, 82.6),
}  # epochs to stop and average loss, nats per picture on CIFAR-10


class Spread(NamedTuple):
    """Mean and standard deviation over seeds; the deviation is None for a single seed."""

    mean: float
    deviation: float | None

    def __str__(self) -> str:
        return f"{self.mean:.1f}" + ("" if self.deviation is None else f" ± {self.deviation:.1f}")


def spread(values: Sequence[float]) -> Spread:
    """Return the mean and the sample standard deviation of the values of several seeds."""
    return Spread(statistics.fmean(values), statistics.stdev(values) if values[1:] else None)


@dataclass(frozen=True)
class Table:
    """Names of columns and the values of each row, shown as text, HTML (in Jupyter) and Markdown.

    The pictures, uint8 [3, H, W], one a row or none at all, stand at the rows' ends in HTML.
    """

    columns: Sequence[str]
    values: Sequence[Sequence[Any]]
    pictures: Sequence[Tensor] = ()

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The values of each row by their column."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.values]

    def _lines(self) -> list[list[str]]:
        return [list(map(str, line)) for line in (self.columns, *self.values)]

    def __repr__(self) -> str:
        widths = [max(map(len, column)) for column in zip(*self._lines(), strict=True)]
        return "\n".join("  ".join(map(str.rjust, line, widths)) for line in self._lines())

    def _repr_html_(self) -> str:
        head, *rows = [[html.escape(cell) for cell in line] for line in self._lines()]
        if len(self.pictures):
            head.append("sample")
            rows = [[*row, _tag(pixels)] for row, pixels in zip(rows, self.pictures, strict=True)]
        lines = ["".join(f"<th>{cell}</th>" for cell in head)]
        lines += ["".join(f"<td>{cell}</td>" for cell in row) for row in rows]
        return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"

    def markdown(self) -> str:
        """Return the table in GitHub's Markdown, without the pictures."""
        head, *rows = self._lines()
        return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *rows])


def _tag(picture: Tensor) -> str:
    content, image = io.BytesIO(), Image.fromarray(picture.movedim(0, -1).numpy())
    ImageOps.scale(image, 3, Image.Resampling.NEAREST).save(content, "PNG")
    code = base64.b64encode(content.getvalue()).decode()
    return f'<img alt="sample from the prior" src="data:image/png;base64,{code}">'


def results_table(runs: Iterable[Run], pictures: Sequence[Tensor] = ()) -> Table:
    """Gather runs, of any number of seeds, into the study's table: a row for each set and model.

    The losses are those of the best epoch, in nats per picture: mean and, over several seeds,
    standard deviation. The pictures, uint8 [3, H, W], are a sample for each row.
    """
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.config["params"]["name"], run.config["model"]), []).append(run)
    rows = []
    for key, group in groups.items():
        epochs = [run.summary["epochs"] for run in group]
        rows.append([*_name(group[0]), len(group), spread(epochs) if epochs[1:] else epochs[0]])
        for part in ("train", "test"):
            rows[-1].append(spread([run.summary[part]["loss"] for run in group]))
        rows[-1] += PUBLISHED.get(key, ("–", "–"))
    columns = ["set", "model", "seeds", "epochs", "training loss", "test loss"]
    return Table([*columns, "published epochs", "published loss"], rows, pictures)


def oscillation(history: History, part: str = "validation_loss") -> float:
    """Measure how much a loss jumps about its own trend, in nats per picture.

    It is the standard deviation of the jumps where they are independent and the trend is locally
    straight: the root mean square of the losses' second differences over the square root of 6.
    The first third, where the loss falls steeply, is left out. NaN for fewer than 15 epochs, which
    are nothing but steep.
    """
    losses = [row[part] for row in history][len(history) // 3 :]
    if len(history) < 15:
        return math.nan
    bends = [a - 2 * b + c for a, b, c in zip(losses, losses[1:], losses[2:], strict=False)]
    return math.sqrt(statistics.fmean(bend**2 for bend in bends) / 6)


def oscillation_table(runs: Iterable[Run]) -> Table:
    """Put the oscillation of the validation loss of each run in a row; see `oscillation`."""
    rows = [
        [*_name(run), run.config["seed"], f"{oscillation(run.history):.2f}".replace("nan", "–")]
        for run in runs
    ]
    return Table(["set", "model", "seed", "oscillation"], rows)


def early_stopping_table(runs: Iterable[Run]) -> Table:
    """Say for each run where early stopping would end it by either loss, and at which loss."""
    rows = []
    for run in runs:
        rows.append(_name(run))
        for part in ("train_loss", "validation_loss"):
            losses = [epoch[part] for epoch in run.history]
            stop = stopping_epoch(losses, run.config["patience"], run.config["min_delta"])
            kept = run.history[best_epoch(losses[:stop]) - 1]["validation_loss"]
            rows[-1] += [stop or "–", f"{kept:.1f}"]
    columns = ["set", "model", "stop by train", "validation loss kept by train"]
    return Table([*columns, "stop by validation", "validation loss kept by validation"], rows)


def parameter_table(sets: Iterable[ParameterSet]) -> Table:
    """Put each parameter set in a row."""
    rows = [[s.name, s.batch_size, f"{s.learning_rate:.0e}", s.latent_dim] for s in sets]
    return Table(["set", "batch size", "learning rate", "latent dimensions"], rows)


def _name(run: Run) -> list[str]:
    return [run.config["params"]["name"], run.model.title]
