"""`make sweep`: vary fields of a run, and draw the loss against what was varied."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from IPython.core.pylabtools import print_figure
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas.api.types import is_numeric_dtype

from vae_core import figures
from vae_core.config import Config, ParameterSet, parameter_set
from vae_core.data import dataset_info
from vae_core.loss import LOSS_PARTS
from vae_core.models import MODELS
from vae_core.runs.checkpoints import free_backup_path
from vae_core.runs.results import COLUMNS
from vae_core.storage import atomic_write, print_error
from vae_study.engine import run_all
from vae_study.html import TEMPLATES
from vae_study.report import claim_folder
from vae_study.settings import Settings, parse_yes_or_no
from vae_study.tasks import Task, announce, make_task

MANY_RUNS = 500  # more are not started by mistake
LOG_SCALE_FROM = 10.0  # ratio of the largest to the smallest value on the horizontal axis


def parse_number_or_text(text: str) -> float | str:
    """Return the number that a text is, or else the text."""
    try:
        return float(text)
    except ValueError:
        return text


PARAMS_TYPES = {field.name: field.type for field in fields(ParameterSet) if field.name != "name"}
DATASET_TYPES = {"dataset": str, "limit": int, "fraction": float, "permuted": float}
CONFIG_TYPES = {field.name: field.type for field in fields(Config)}
FIELD_TYPES = CONFIG_TYPES | PARAMS_TYPES | DATASET_TYPES
PARSERS: dict[Any, Callable[[str], Any]] = {
    int: int,
    float: float,
    bool: parse_yes_or_no,
    float | str: parse_number_or_text,
}


def parse_grid(grid: str) -> dict[str, list]:
    """Read the values of each field from a text.

    Raises ValueError where a field is unknown or repeated, or where a value is not of its type.

    >>> parse_grid("model=conv,fc beta=0.1,1 seed=0")
    {'model': ['conv', 'fc'], 'beta': [0.1, 1.0], 'seed': [0]}
    """
    values: dict[str, list] = {}
    for word in grid.split():
        name, _, text = word.partition("=")
        if name not in FIELD_TYPES:
            known = ", ".join(FIELD_TYPES)
            raise ValueError(f"GRID: the field {name!r} is unknown; choose from {known}")
        if name in values:
            raise ValueError(f"GRID: the field {name!r} is repeated; give all its values at once")
        values[name] = _parse_values(name, text)
    if not values:
        raise ValueError('GRID is empty; give what to vary, as in GRID="model=conv,fc beta=0.1,1"')
    return values


def _parse_values(name: str, text: str) -> list:
    texts = text.split(",")
    if "" in texts:
        raise ValueError(f"GRID: the field {name!r} lacks a value; write {name}=first,second")
    field_type = FIELD_TYPES[name]
    parse = PARSERS.get(field_type, str)
    try:
        values = [parse(text) for text in texts]
    except ValueError:
        type_name = getattr(field_type, "__name__", field_type)
        raise ValueError(f"GRID: a value of {name!r} is no {type_name}: {text}") from None
    if len(set(values)) < len(values):
        raise ValueError(f"GRID: the field {name!r} has a value twice: {text}")
    return values


def combinations(grid: Mapping[str, Sequence]) -> list[dict[str, Any]]:
    """List every combination of the values, each as a dict by field."""
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def sweep_tasks(grid: Mapping[str, Sequence], settings: Settings) -> list[Task]:
    """List a run for each combination; what is not varied is the first one of the settings.

    Raises ValueError, which names the field, where a value is invalid.
    """
    tasks = []
    for options in combinations(grid):
        params = options.pop("params", settings.sets[0])
        changed = {name: options.pop(name) for name in PARAMS_TYPES if name in options}
        if changed:
            params = replace(parameter_set(params), **changed)
        usual = {"model": "conv", "dataset": settings.dataset, "seed": settings.seed}
        task = make_task(settings, params=params, **usual | options)
        task.check()
        tasks.append(task)
    return tasks


def sweep(grid: str | Mapping[str, Sequence], settings: Settings | None = None) -> pd.DataFrame:
    """Train or load a run for each combination of values; return a row for each that succeeded.

    The first columns are the varied fields, the others those of `runs.results.result_row`. The
    error of a run that failed is printed to the error stream.

    Args:
        grid: a text that `parse_grid` reads, or the values by field.
        settings: the data set, the number of workers and so on.

    Raises ValueError where a value is invalid, or where so many runs need `settings.yes`, and
    FileNotFoundError where a data set is missing.
    """
    settings = settings or Settings()
    if isinstance(grid, str):
        grid = parse_grid(grid)
    tasks = sweep_tasks(grid, settings)
    if len(tasks) > MANY_RUNS and not settings.yes:
        raise ValueError(f"GRID makes {len(tasks):,} runs; YES=1 starts that many")
    rows = []
    for row, values in zip(train_all(tasks, settings), combinations(grid), strict=True):
        if row is not None:
            rows.append(row | values)
    other_columns = [name for name in COLUMNS if name not in grid]
    return pd.DataFrame(rows, columns=[*grid, *other_columns])


def train_all(tasks: list[Task], settings: Settings) -> list[dict[str, Any] | None]:
    """Announce runs, and train or load them; return their rows of results, None for failures."""
    untrained = [task for task in tasks if task.finished(settings.checkpoints) is None]
    announce(tasks, untrained, settings)
    outcomes = run_all(tasks, settings)
    for outcome in outcomes:
        if outcome.error:
            print_error(f"{outcome.task.label}: {outcome.error}")
    return [outcome.row for outcome in outcomes]


class Line(NamedTuple):
    """The runs that are one line of a sweep's figure."""

    label: str
    colour: str
    runs: pd.DataFrame


def sweep_figure(table: pd.DataFrame, varied: Sequence[str]) -> Figure:
    """Draw loss, reconstruction and KL of the test images against the field with most values.

    Each combination of the other fields except the seed is a line through the means over its runs,
    which are dots.

    Args:
        table: rows of results, as `sweep` returns them.
        varied: the columns that were varied.
    """
    along = horizontal_field(table, varied)
    lines = find_lines(table, varied, along)
    figure, axes = figures.panels(len(LOSS_PARTS), f"Test loss against {along}", (12, 4.2))
    for axis, part in zip(axes[0], LOSS_PARTS, strict=True):
        for line in lines:
            draw_line(axis, line, along, f"test_{part}")
        axis.set(xlabel=along, title=figures.LABELS[part])
        if is_quantity(table, along) and spans_magnitudes(table[along]):
            axis.set_xscale("log")
    axes[0, 0].set_ylabel("nats per image, each run by its own objective")
    if lines[0].label:
        axes[0, 0].legend()
    return figure


def is_quantity(table: pd.DataFrame, name: str) -> bool:
    """Return whether a field is a number whose size means something, which a seed is not."""
    return name != "seed" and is_numeric_dtype(table[name])


def horizontal_field(table: pd.DataFrame, varied: Sequence[str]) -> str:
    """Return the varied quantity with most values; without any quantity, the field with most."""
    quantities = [name for name in varied if is_quantity(table, name)]
    return max(quantities or varied, key=lambda name: table[name].nunique())


def find_lines(table: pd.DataFrame, varied: Sequence[str], along: str) -> list[Line]:
    """Return the runs of each combination of the varied fields other than `along` and the seed."""
    names = [name for name in varied if name not in (along, "seed") and table[name].nunique() > 1]
    groups = table.groupby(names) if names else [((), table)]
    lines = []
    for number, (values, runs) in enumerate(groups):
        words = []
        for name, value in zip(names, values, strict=True):
            words.append(MODELS[value].title if name == "model" else f"{name} {value}")
        differs_by_model_only = set(names) <= {"model"}
        colour = MODELS[runs["model"].iloc[0]].colour if differs_by_model_only else f"C{number}"
        lines.append(Line(", ".join(words), colour, runs))
    return lines


def draw_line(axis: Axes, line: Line, along: str, column: str) -> None:
    """Draw the runs of a line as dots, and the line through their means."""
    means = line.runs.groupby(along, sort=is_quantity(line.runs, along))[column].mean()
    axis.plot(means.index, means, color=line.colour, label=line.label)
    axis.plot(line.runs[along], line.runs[column], "o", color=line.colour, alpha=0.5)


def spans_magnitudes(values: pd.Series) -> bool:
    """Return whether a logarithmic axis suits the values."""
    return values.min() > 0 and values.max() >= LOG_SCALE_FROM * values.min()


def run_command(settings: Settings) -> int:
    """Carry out `make sweep`: write `sweep.csv` and `sweep.html`; return the exit code."""
    grid = parse_grid(settings.grid)
    claim_folder(settings.report)
    table = sweep(grid, settings)
    if table.empty:
        raise ValueError("all runs of the sweep failed; the lines above say why")
    csv, page = settings.report / "sweep.csv", settings.report / "sweep.html"
    for path in (csv, page):
        keep_previous(path)
    atomic_write(csv, table.to_csv(index=False, lineterminator="\n"))
    atomic_write(page, sweep_page(table, grid, settings))
    print(f"the results of the sweep are in {csv}, its page is {page}")
    return int(len(table) < math.prod(len(values) for values in grid.values()))


def keep_previous(path: Path) -> None:
    """Rename a file of an earlier sweep to `<name>.previous-<n>`, n the first free number."""
    if not path.exists():
        return
    backup = free_backup_path(path, path.suffix)
    path.rename(backup)
    print(f"the earlier {path.name} is kept as {backup.name}")


def sweep_page(table: pd.DataFrame, grid: Mapping[str, Sequence], settings: Settings) -> str:
    """Return the page of a sweep as HTML: the figure, and a table of the main columns."""
    titles = [dataset_info(name).title for name in grid.get("dataset", [settings.dataset])]
    losses = [f"test_{part}" for part in LOSS_PARTS]
    return TEMPLATES.get_template("sweep.html.j2").render(
        grid=settings.grid,
        data=", ".join(titles),
        image=print_figure(sweep_figure(table, list(grid)), "retina", base64=True),
        table=table[[*grid, "epochs", *losses, "seconds"]].to_html(index=False, border=0),
    )
