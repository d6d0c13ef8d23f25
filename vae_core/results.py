"""What the runs say, in numbers: a row for each, the study's table, oscillation, collapse."""

import base64
import csv
import html
import io
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageOps
from torch import Tensor

from vae_core.checkpoints import History, Run
from vae_core.evaluation import evaluate
from vae_core.files import write
from vae_core.latent import active_dimensions, prior_draws, unevenness
from vae_core.models import MODELS, VAE
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

    def __format__(self, digits: str) -> str:
        digits = digits or ".1f"
        deviation = () if self.deviation is None else (format(self.deviation, digits),)
        return " ± ".join((format(self.mean, digits), *deviation))

    def __str__(self) -> str:
        return format(self)


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


Result = dict[str, Any]
LOSSES = {
    f"{part}_{name}": (part, name)
    for part in ("train", "validation", "test")
    for name in ("loss", "reconstruction", "kl")
}
RESULT_COLUMNS: dict[str, type] = {
    **{"dataset": str, "model": str, "params": str},
    **{"batch_size": int, "learning_rate": float, "latent_dim": int},
    **{"seed": int, "beta": float, "reduction": str, "max_epochs": int},
    **{"epochs": int, "best_epoch": int},
    **dict.fromkeys(LOSSES, float),
    **{"oscillation": float, "active_dimensions": int, "unevenness": float},
    **{"seconds_per_epoch": float, "seconds": float, "precision": str},
    **{"device": str, "threads": int, "processor": str},
    "rounding": float,
    **{"vae_core": str, "python": str, "torch": str, "numpy": str, "code": str},
}
IDENTITY = ("dataset", "model", "params", "seed", "beta", "reduction")
OPTIONAL = ("active_dimensions", "rounding")


def result(run: Run, test: Tensor | None = None) -> Result:
    """Put a run into one flat row with the names in `RESULT_COLUMNS`.

    Losses are those of the run's own objective (its `beta` and `reduction`), for the study's loss
    in nats per picture; those of the training and validation part are of the best epoch.
    The active dimensions are counted over the test pictures, uint8 [N, C, H, W], where given;
    `unevenness` is that of interpolation between draws from the prior, see `latent.unevenness`;
    `rounding` is what the float16 weights of a published run change in its test loss.
    """
    config, summary, record = run.config, run.summary, run.record
    params = config["params"]
    values = {
        **config,
        **params,
        **record,
        **record["versions"],
        **summary,
        **{column: round(summary[part][name], 4) for column, (part, name) in LOSSES.items()},
        "params": params["name"],
        "oscillation": round(oscillation(run.history), 4),
        "active_dimensions": None if test is None else active_dimensions(run.model, test),
        "unevenness": round(_unevenness_between_draws(run.model), 3),
        "rounding": (record.get("published") or {}).get("rounding"),
        "seconds_per_epoch": round(summary["seconds_per_epoch"], 2),
        "seconds": round(summary["seconds"], 1),
    }
    return {name: values[name] for name in RESULT_COLUMNS}


def _unevenness_between_draws(model: VAE, pairs: int = 50) -> float:
    """Return the mean over pairs of draws from the prior; the same pairs as in 03."""
    ends = (prior_draws(model, pairs, seed) for seed in (1, 2))
    return unevenness(model, *ends).mean().item()


def write_results(path: Path, results: Iterable[Result]) -> None:
    """Write results as a table that spreadsheets read; raises OSError where that fails."""
    text = io.StringIO()
    writer = csv.DictWriter(text, RESULT_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(results)
    write(path, text.getvalue())


def read_results(path: Path) -> list[Result]:
    """Read what `write_results` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such table; the message names the file and the line.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist; make study writes such a table") from None
    reader = csv.DictReader(io.StringIO(content.decode(errors="replace"), newline=""), strict=True)
    results: dict[tuple, Result] = {}
    try:
        for row in reader:
            parsed = _parse(row)
            key = tuple(parsed[name] for name in IDENTITY)
            if key in results:
                raise ValueError("the same run stands there twice")
            results[key] = parsed
    except (KeyError, ValueError, csv.Error) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise ValueError(
            f"{path}, line {reader.line_num}: {reason}; take the table that make study wrote, "
            "or the published one with git checkout"
        ) from error
    if not results:
        raise ValueError(f"{path} has no results; make study writes such a table")
    return list(results.values())


def _parse(row: dict[str, str]) -> Result:
    if None in row or None in row.values():
        raise ValueError("too many or too few values")
    texts = {name: row[name] for name in RESULT_COLUMNS}
    if missing := [name for name, text in texts.items() if not text and name not in OPTIONAL]:
        raise ValueError(f"{missing[0]} is empty")
    parsed = {name: RESULT_COLUMNS[name](text) if text else None for name, text in texts.items()}
    for name, value in parsed.items():
        if isinstance(value, float) and not math.isfinite(value) and name != "oscillation":
            raise ValueError(f"{name} is {value}")
    if parsed["model"] not in MODELS:
        raise ValueError(f"unknown model {parsed['model']!r}")
    return parsed


def study_loss(result: Result) -> bool:
    """Whether a run was trained with the study's own loss, both terms summed and none weighted."""
    return result["beta"] == 1 and result["reduction"] == "sum"


def _by_set_and_model(results: Iterable[Result]) -> dict[tuple[str, str], list[Result]]:
    groups: dict[tuple[str, str], list[Result]] = {}
    for row in results:
        groups.setdefault((row["params"], row["model"]), []).append(row)
    return groups


def results_table(results: Iterable[Result], pictures: Sequence[Tensor] = ()) -> Table:
    """Gather results of any number of seeds into the study's table: a row for each set and model.

    The losses are those of the best epoch, in nats per picture: mean and, over several seeds,
    standard deviation. The pictures, uint8 [3, H, W], are a sample for each row.
    """
    rows = []
    for (params, model), group in _by_set_and_model(results).items():
        epochs = [row["epochs"] for row in group]
        rows.append([params, MODELS[model].title, len(group)])
        rows[-1].append(spread(epochs) if epochs[1:] else epochs[0])
        for name in ("train_loss", "test_loss", "test_reconstruction", "test_kl"):
            rows[-1].append(spread([row[name] for row in group]))
        rows[-1] += PUBLISHED.get((params, model), ("–", "–"))
    columns = ["set", "model", "seeds", "epochs", "training loss", "test loss"]
    columns += ["reconstruction", "KL", "published epochs", "published loss"]
    return Table(columns, rows, pictures)


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


def oscillation_table(results: Iterable[Result]) -> Table:
    """Put the oscillation of the validation loss in a row for each set and model.

    Mean and standard deviation are over the runs that are long enough; see `oscillation`.
    """
    rows = []
    for (params, model), group in _by_set_and_model(results).items():
        values = [row["oscillation"] for row in group if not math.isnan(row["oscillation"])]
        measured = f"{spread(values):.2f}" if values else "–"
        rows.append([params, MODELS[model].title, len(values), measured])
    return Table(["set", "model", "runs", "oscillation"], rows)


def collapse_table(models: Mapping[str, VAE], pictures: Tensor) -> Table:
    """Say for each model what its latents carry, over pictures uint8 [N, C, H, W].

    The squared error is summed over a picture's values whatever the model was trained with, and
    the KL term has its full weight; both are means over pictures.
    """
    rows = []
    for name, model in models.items():
        losses = evaluate(model, pictures)
        rows.append([name, *(f"{losses[part]:.1f}" for part in ("reconstruction", "kl"))])
        rows[-1].append(f"{active_dimensions(model, pictures)} of {model.latent_dim}")
    return Table(["loss", "squared error", "KL", "active dimensions"], rows)


def early_stopping_table(runs: Iterable[Run]) -> Table:
    """Say for each run where early stopping would end it by either loss, and at which loss."""
    rows = []
    for run in runs:
        rows.append([run.config["params"]["name"], run.model.title, run.config["seed"]])
        for part in ("train_loss", "validation_loss"):
            losses = [epoch[part] for epoch in run.history]
            stop = stopping_epoch(losses, run.config["patience"], run.config["min_delta"])
            kept = run.history[best_epoch(losses[:stop]) - 1]["validation_loss"]
            rows[-1] += [stop or "–", f"{kept:.1f}"]
    columns = ["set", "model", "seed", "stop by train", "validation loss kept by train"]
    return Table([*columns, "stop by validation", "validation loss kept by validation"], rows)


def parameter_table(sets: Iterable[ParameterSet]) -> Table:
    """Put each parameter set in a row."""
    rows = [[s.name, s.batch_size, f"{s.learning_rate:.0e}", s.latent_dim] for s in sets]
    return Table(["set", "batch size", "learning rate", "latent dimensions"], rows)
