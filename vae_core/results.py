"""What the runs say, in numbers: the study's table, differences, oscillation."""

import base64
import html
import io
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from PIL import Image
from torch import Tensor

from vae_core.checkpoints import History, Run
from vae_core.models import MODELS
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
        """Return "74.1 ± 0.2", or "74.1" for a single seed."""
        tail = "" if self.deviation is None else f" ± {self.deviation:.1f}"
        return f"{self.mean:.1f}{tail}"


def spread(values: Sequence[float]) -> Spread:
    """Return the mean and the sample standard deviation of the values of several seeds."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return Spread(statistics.fmean(values), deviation)


@dataclass(frozen=True)
class Table:
    """Rows with the same columns, shown as text, as HTML in Jupyter, and as Markdown.

    Attributes:
        rows: the values by column.
        pictures: uint8 [3, H, W], one a row, shown at the row's end in HTML; or none at all.
    """

    rows: list[dict[str, Any]]
    pictures: list[Tensor] = field(default_factory=list, repr=False)

    def __repr__(self) -> str:
        lines = [list(self.rows[0]), *([str(value) for value in row.values()] for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
            for line in lines
        )

    def _repr_html_(self) -> str:
        head = [*self.rows[0], *(["sample"] if self.pictures else [])]
        lines = ["".join(f"<th>{html.escape(name)}</th>" for name in head)]
        for number, row in enumerate(self.rows):
            cells = [html.escape(str(value)) for value in row.values()]
            if self.pictures:
                cells.append(_image_tag(self.pictures[number]))
            lines.append("".join(f"<td>{cell}</td>" for cell in cells))
        return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"

    def markdown(self) -> str:
        """Return the table in GitHub's Markdown, without the pictures."""
        lines = [list(self.rows[0]), ["---"] * len(self.rows[0])]
        lines += [[str(value) for value in row.values()] for row in self.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _image_tag(picture: Tensor, scale: int = 3) -> str:
    image = Image.fromarray(picture.movedim(0, -1).numpy())
    image = image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
    content = io.BytesIO()
    image.save(content, "PNG")
    code = base64.b64encode(content.getvalue()).decode()
    return f'<img alt="sample from the prior" src="data:image/png;base64,{code}">'


def results_table(runs: Iterable[Run], pictures: Sequence[Tensor] = ()) -> Table:
    """Gather runs into the study's table: a row for each parameter set and model.

    The losses are those of the best epoch, in nats per picture: mean and, over several seeds,
    standard deviation. The last two columns are what the study published for CIFAR-10.

    Args:
        runs: any number of seeds for each parameter set and model.
        pictures: a sample for each row, uint8 [3, H, W].
    """
    groups: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in runs:
        groups[run.config["params"]["name"], run.config["model"]].append(run)
    rows = [
        {
            "set": params,
            "model": MODELS[model].title,
            "seeds": len(group),
            "epochs": group[0].summary["epochs"]
            if len(group) == 1
            else spread([run.summary["epochs"] for run in group]),
            "training loss": spread([run.summary["train"]["loss"] for run in group]),
            "test loss": spread([run.summary["test"]["loss"] for run in group]),
            "published epochs": PUBLISHED.get((params, model), ("–", "–"))[0],
            "published loss": PUBLISHED.get((params, model), ("–", "–"))[1],
        }
        for (params, model), group in groups.items()
    ]
    return Table(rows, list(pictures))


def oscillation(history: History, part: str = "validation_loss") -> float:
    """Measure how much a loss jumps about its own trend, in nats per picture.

    It is the root mean square of the second differences of the epochs' losses over the square
    root of 6, which is the standard deviation of the jumps where they are independent and the
    trend is locally straight. The first third of the epochs, where the loss falls steeply, is
    left out. NaN for fewer than five epochs.
    """
    losses = [row[part] for row in history][len(history) // 3 :]
    if len(history) < 5:
        return math.nan
    bends = [a - 2 * b + c for a, b, c in zip(losses, losses[1:], losses[2:], strict=False)]
    return math.sqrt(statistics.fmean(bend**2 for bend in bends) / 6)


def oscillation_table(runs: Iterable[Run]) -> Table:
    """Put the oscillation of the validation loss of each run in a row; see `oscillation`."""
    return Table(
        [
            {
                "set": run.config["params"]["name"],
                "model": run.model.title,
                "seed": run.config["seed"],
                "oscillation": f"{oscillation(run.history):.2f}",
            }
            for run in runs
        ]
    )


def early_stopping_table(runs: Iterable[Run]) -> Table:
    """Say for each run where early stopping would end it by either loss, and at which loss."""
    rows = []
    for run in runs:
        row = {"set": run.config["params"]["name"], "model": run.model.title}
        for part in ("train", "validation"):
            losses = [epoch[f"{part}_loss"] for epoch in run.history]
            stop = stopping_epoch(losses, run.config["patience"], run.config["min_delta"])
            best = best_epoch(losses[:stop])
            row[f"stop by {part}"] = stop or "–"
            row[f"validation loss kept by {part}"] = (
                f"{run.history[best - 1]['validation_loss']:.1f}"
            )
        rows.append(row)
    return Table(rows)


def parameter_table(sets: Iterable[ParameterSet]) -> Table:
    """Put each parameter set in a row."""
    return Table(
        [
            {
                "set": parameters.name,
                "batch size": parameters.batch_size,
                "learning rate": f"{parameters.learning_rate:.0e}",
                "latent dimensions": parameters.latent_dim,
            }
            for parameters in sets
        ]
    )
