"""`make sweep`: fields of a run are varied, and the loss is shown against them."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace

import pandas as pd
from IPython.core.pylabtools import print_figure
from matplotlib.figure import Figure
from pandas.api.types import is_numeric_dtype

from study import engine, runs
from study.pages import TEMPLATES, claim
from study.runs import Settings, Task
from vae_core import figures
from vae_core.checkpoints import PARTS
from vae_core.data import facts
from vae_core.models import MODELS
from vae_core.parameter_sets import ParameterSet, parameter_set
from vae_core.storage import say, write
from vae_core.tables import COLUMNS
from vae_core.training import Config

OF_PARAMS = {field.name: field.type for field in fields(ParameterSet) if field.name != "name"}
OF_DATA = {"dataset": str, "limit": int, "fraction": float, "permuted": float}
KINDS = {field.name: field.type for field in fields(Config)} | OF_PARAMS | OF_DATA
MANY = 500  # runs, above which nobody starts them by mistake


def parse(grid: str) -> dict[str, list]:
    """Read the values of each field from a text like "model=conv,fc beta=0.1,1 seed=0,1".

    A ValueError says which field is unknown or named twice, or which value is none of its kind.
    """
    values: dict[str, list] = {}
    for word in grid.split():
        name, _, listed = word.partition("=")
        if name not in KINDS or name in values:
            wrong = "named twice" if name in values else "unknown"
            raise ValueError(f"GRID: {name!r} is {wrong}; give each once of {', '.join(KINDS)}")
        if "" in (texts := listed.split(",")):
            raise ValueError(f"GRID: {word!r} lacks a value; write {name}=one,another")
        kind = KINDS[name] if KINDS[name] in (int, float) else str
        try:
            values[name] = [kind(text) for text in texts]
        except ValueError:
            raise ValueError(f"GRID: {word!r} has something that is no {kind.__name__}") from None
    if not values:
        raise ValueError('GRID is empty; give what to vary, as in GRID="model=conv,fc beta=0.1,1"')
    return values


def tasks(grid: Mapping[str, Sequence], settings: Settings) -> list[Task]:
    """List a run for each combination; what is not varied is the first of the settings.

    A ValueError names a value that makes no sense.
    """
    listed = []
    for values in itertools.product(*grid.values()):
        asked = dict(zip(grid, values, strict=True))
        params = asked.pop("params", settings.sets[0])
        if own := {name: asked.pop(name) for name in OF_PARAMS if name in asked}:
            params = replace(parameter_set(params), **own)
        named = {"model": "conv", "dataset": settings.dataset, "seed": settings.seed} | asked
        listed.append(settings.task(params=params, **named))
        _ = listed[-1].config  # where a value makes no sense, it says so now
    return listed


def sweep(grid: str | Mapping[str, Sequence], settings: Settings | None = None) -> pd.DataFrame:
    """Train or load a run for each combination of values; return a row for each that ended well.

    Its first columns are what was varied, the others those of `vae_core.tables.result`. Why a run
    failed is a line on the error stream. `grid` is a text as `parse` reads it, or values by field.
    Raises ValueError where one of them makes no sense, or so many runs need `settings.yes`, and
    FileNotFoundError where a data set is missing.
    """
    settings = settings or Settings()
    grid = parse(grid) if isinstance(grid, str) else grid
    listed = tasks(grid, settings)
    if len(listed) > MANY and not settings.yes:
        raise ValueError(f"GRID makes {len(listed):,} runs; YES=1 starts as many")
    rows = train(listed, settings)
    varied = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    rows = [{**row, **values} for row, values in zip(rows, varied, strict=True) if row]
    return pd.DataFrame(rows, columns=[*grid, *(name for name in COLUMNS if name not in grid)])


def train(listed: list[Task], settings: Settings) -> list[dict | None]:
    """Train or load runs, say how many and how long first; return their rows, None for failures."""
    waiting = [task for task in listed if not task.finished(settings.checkpoints)]
    runs.announce(listed, waiting, settings)
    outcomes = engine.run_all(listed, settings)
    for outcome in outcomes:
        if outcome.error:
            say(f"{outcome.task.label}: {outcome.error}")
    return [outcome.row for outcome in outcomes]


def figure(frame: pd.DataFrame, varied: Sequence[str]) -> Figure:
    """Draw loss, reconstruction and KL of the test images against the field with most values.

    Each combination of the other fields but the seed is a line through the means over its runs,
    which are dots.
    """
    numbers = [name for name in varied if is_numeric_dtype(frame[name]) and name != "seed"]
    along = max(numbers or varied, key=lambda name: frame[name].nunique())
    others = [name for name in varied if name not in (along, "seed") and frame[name].nunique() > 1]
    drawn, axes = figures.panels(3, f"Test loss against {along}", (12, 4.2))
    for place, (key, line) in enumerate(frame.groupby(others) if others else [((), frame)]):
        named = zip(others, key, strict=True)
        label = ", ".join(MODELS[v].title if n == "model" else f"{n} {v}" for n, v in named)
        colour = f"C{place}" if {*others} - {"model"} else MODELS[line["model"].iloc[0]].colour
        for axis, part in zip(axes[0], PARTS, strict=True):
            means = line.groupby(along, sort=bool(numbers))[f"test_{part}"].mean()
            axis.plot(means.index, means, color=colour, label=label)
            axis.plot(line[along], line[f"test_{part}"], "o", color=colour, alpha=0.5)
    for axis, part in zip(axes[0], PARTS, strict=True):
        axis.set(xlabel=along, title=figures.LABELS[part])
        if numbers and frame[along].min() > 0 and frame[along].max() >= 10 * frame[along].min():
            axis.set_xscale("log")
    axes[0, 0].set_ylabel("nats per image, each run by its own objective")
    if others:
        axes[0, 0].legend()
    return drawn


def command(settings: Settings) -> int:
    """Do what `make sweep` was asked for; write `sweep.csv` and `sweep.html`; return the code."""
    grid = parse(settings.grid)
    claim(settings.report)
    frame = sweep(grid, settings)
    if frame.empty:
        raise ValueError("no run ended well")
    write(settings.report / "sweep.csv", frame.to_csv(index=False, lineterminator="\n"))
    shown = frame[[*grid, "epochs", *(f"test_{part}" for part in PARTS), "seconds"]]
    page = TEMPLATES.get_template("sweep.html.j2").render(
        grid=settings.grid,
        data=", ".join(facts(name).title for name in grid.get("dataset", [settings.dataset])),
        image=print_figure(figure(frame, list(grid)), "retina", base64=True),
        table=shown.to_html(index=False, border=0),
    )
    write(settings.report / "sweep.html", page)
    print(f"the table is {settings.report / 'sweep.csv'}, its page sweep.html beside it")
    return int(len(frame) < math.prod(map(len, grid.values())))
