"""`make publish`: rounded weights, figures, and the numbers of the README and the docs."""

import copy
import shutil
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pandas as pd
import torch
from IPython.core.pylabtools import print_figure
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from vae_core import __version__, figures
from vae_core.data import Dataset
from vae_core.evaluation import class_accuracy, evaluate, importance_weighted_bound
from vae_core.latent import posterior_means, posterior_samples
from vae_core.models import VAE
from vae_core.runs import Run, load_run
from vae_core.runs.checkpoints import RUN, move_to_backup, write_run
from vae_core.runs.fingerprints import training_code
from vae_core.runs.results import read_results, rows_of_run, write_results
from vae_core.runs.training_run import published_name
from vae_core.storage import PROJECT, atomic_write
from vae_study import answer
from vae_study.budgets import ladder_figure, losses_by_permutation, tuned_runs
from vae_study.numbers import DOCUMENTS, fill_documents, linear_loss
from vae_study.settings import Settings
from vae_study.tasks import Task, study_tasks

FIGURES = PROJECT / "figures"
RESULTS, ANSWER = "results.csv", "answer.csv"
ROUNDED_TYPES = (torch.bfloat16, torch.float16)  # the former takes less room in git
ROUNDING_LIMIT = 0.05  # of the change of the test loss, in nats per image
BOUND_IMAGES = 500  # test images of which the importance-weighted bound is taken
PROBE_PIXELS = 16  # height and width of the images that a linear probe sees


class NewTable(NamedTuple):
    """A table that is to be published, and the tasks whose weights are published with it."""

    name: str  # of its file in `figures/`
    table: pd.DataFrame
    tasks: list[Task]


class RoundedModel(NamedTuple):
    """A model with weights rounded to `dtype`, and what that changes in its test loss."""

    model: VAE
    dtype: torch.dtype
    loss_change: float


def publish(settings: Settings) -> None:
    """Bring weights, tables, figures, README and docs up to date: all of them, or none.

    With `settings.results`, the table of `make study` or `make answer` with these settings, that
    table is published with the weights of its first seed, or of the runs that the notebooks show.
    Without, the figures and texts are made again from what is published. Raises ValueError or
    FileNotFoundError where the table does not fit the settings, a run is missing, rounding changes
    a loss too much, or a document cannot be filled.
    """
    new = read_new_table(settings) if settings.results else None
    tables = {}
    for name in (RESULTS, ANSWER):
        if new and new.name == name:
            tables[name] = new.table
        else:
            tables[name] = read_results(FIGURES / name)
    results, answers = tables[RESULTS], tables[ANSWER]
    published = settings.checkpoints / "published"
    with TemporaryDirectory(prefix=".publishing-", dir=settings.checkpoints) as folder:
        staged = Path(folder) / "published"
        if published.exists():
            shutil.copytree(published, staged)
        if new:
            for task in new.tasks:
                publish_run(task, settings, staged, new.table)
        documents = fill_documents(DOCUMENTS, results, answers)
        images = draw_figures(staged, results, answers)
        # Whatever can be wrong would have raised an error by now; only now are files replaced.
        if new:
            if published.exists():
                print(f"what was published is kept as {move_to_backup(published)}")
            staged.rename(published)
            write_results(FIGURES / new.name, new.table.to_dict("records"))
        for name, image in images.items():
            atomic_write(FIGURES / name, image)
        for path, text in documents.items():
            atomic_write(path, text)


def read_new_table(settings: Settings) -> NewTable:
    """Read the table to be published; the schedule tells an answer from a study."""
    table = read_results(settings.results)
    if (table["schedule"] == "cosine").all():
        return NewTable(ANSWER, table, answer.grid_tasks(settings, answer.PUBLISHED_RUNS))
    tasks = [task for task in study_tasks(settings) if task.seed == settings.seed]
    return NewTable(RESULTS, table, tasks)


def publish_run(task: Task, settings: Settings, staged: Path, table: pd.DataFrame) -> None:
    """Write a run with rounded weights below `staged`, unless it is a published run already.

    Enter what its publication measured in the columns "rounding" and "bound" of `table`.
    """
    run = task.finished(settings.checkpoints)
    if run is None:
        raise FileNotFoundError(f"{task.label} is not trained; make study with these settings")
    rows = rows_of_run(table, run.config, run.dataset["folder"])
    if not rows.any():
        raise ValueError(f"{settings.results} has no {task.label}; give the settings of its study")
    publication = run.provenance["published"]
    if not publication:
        publication = write_rounded(task, run, staged)
    for name in ("rounding", "bound"):
        table.loc[rows, name] = publication.get(name)


def write_rounded(task: Task, run: Run, staged: Path) -> dict[str, Any]:
    """Write a run with rounded weights; return what its `run.json` says about the publication."""
    dataset = task.arguments["dataset"]
    rounded = round_weights(task, run)
    publication = {
        "version": __version__,
        "date": f"{date.today():%Y-%m-%d}",
        "weights": str(rounded.dtype).removeprefix("torch."),
        "rounding": round(rounded.loss_change, 5),
        "code": training_code(type(run.model)),
        **measure_bounds(rounded.model, dataset.test[:BOUND_IMAGES]),
    }
    if dataset.labels is not None:
        publication["class_accuracy"] = measure_class_accuracy(rounded.model, dataset)
    folder = staged / run.dataset["name"] / published_name(run.config)
    shutil.rmtree(folder, ignore_errors=True)
    provenance = {**run.provenance, "published": publication}
    published = replace(run, model=rounded.model, provenance=provenance, folder=folder)
    write_run(published, rounded.dtype)
    return publication


def round_weights(task: Task, run: Run) -> RoundedModel:
    """Round the weights to the first type that changes the test loss by at most the limit."""
    config, images = run.config, task.arguments["dataset"].test
    for dtype in ROUNDED_TYPES:
        model = copy.deepcopy(run.model).to(dtype).float()
        loss = evaluate(model, images, beta=config.beta, reduction=config.reduction)["loss"]
        change = loss - run.summary["test"]["loss"]
        if abs(change) <= ROUNDING_LIMIT:
            return RoundedModel(model, dtype, change)
    raise ValueError(f"rounded weights change the test loss of {task.label} by {change:.3f}")


def measure_bounds(model: VAE, images: Tensor) -> dict[str, float]:
    """Return the mean importance-weighted bound of uint8 images, and the loss beside it."""
    bound = importance_weighted_bound(model, images).mean().item()
    return {
        "bound": round(bound, 3),
        "bound_one_draw": round(evaluate(model, images)["loss"], 3),
    }


def measure_class_accuracy(model: VAE, dataset: Dataset) -> dict[str, float]:
    """Return the accuracy of a linear probe on mu, on posterior samples and on small images."""
    train_labels, _, test_labels = dataset.labels

    def accuracy(features: Callable[[Tensor], Tensor]) -> float:
        return class_accuracy(features, dataset.train, train_labels, dataset.test, test_labels)

    return {
        "mu": accuracy(partial(posterior_means, model)),
        "draws": accuracy(partial(posterior_samples, model)),
        "pixels": accuracy(small_pixels),
    }


def small_pixels(images: Tensor) -> Tensor:
    """Return uint8 images [N, 3, H, W] as values [N, D] in [0, 1], scaled down by averaging."""
    size = min(PROBE_PIXELS, images.shape[-1])
    return adaptive_avg_pool2d(images / 255, size).flatten(1)


def draw_figures(published: Path, results: pd.DataFrame, answers: pd.DataFrame) -> dict[str, bytes]:
    """Return every published figure, PNG, by the name of its file.

    They are samples, interpolations and loss curves of the published runs of each data set, and
    the ladder from fully connected to convolutional.
    """
    drawn = {}
    for name, runs in runs_by_dataset(published, set(results["dataset"])).items():
        title = f"trained on {next(iter(runs.values())).dataset['title']}"
        models = {label: run.model for label, run in runs.items()}
        samples = figures.samples(models, f"Decoded samples from the prior, {title}", n=12)
        lines = f"Straight lines between two samples from the prior, {title}"
        curves = figures.loss_curves(runs, f"Validation loss, {title}", training=False)
        drawn[f"{name}-samples.png"] = samples
        drawn[f"{name}-interpolation.png"] = figures.interpolations(models, lines)
        drawn[f"{name}-curves.png"] = curves
    drawn["ladder.png"] = draw_ladder(results, answers)
    return {name: print_figure(figure, "retina") for name, figure in drawn.items()}


def runs_by_dataset(published: Path, folders: set[str]) -> dict[str, dict[str, Run]]:
    """Return the published runs with the original study's training, by data set and by label.

    `folders` names the data sets as in the results. Raises FileNotFoundError where there is no
    published run.
    """
    files = published.glob(f"*/*/{RUN}")
    runs = [load_run(file.parent) for file in files]
    if not runs:
        raise FileNotFoundError("no run is published; git checkout -- checkpoints restores them")
    by_dataset = defaultdict(dict)
    for run in sorted(runs, key=lambda run: (run.config.params.name, run.folder)):
        config = run.config
        is_original = (config.beta, config.reduction, config.schedule) == (1, "sum", "constant")
        is_usual_set = config.params.name in Settings.sets
        if is_original and is_usual_set and run.dataset["folder"] in folders:
            by_dataset[run.dataset["name"]][f"{config.params.name} {run.model.title}"] = run
    return by_dataset


def draw_ladder(results: pd.DataFrame, answers: pd.DataFrame) -> Figure:
    """Draw the models from fully connected to convolutional, in order and permuted."""
    title = answers["title"].iloc[0]
    linear = linear_loss(results[results["title"] == title])
    return ladder_figure(losses_by_permutation(tuned_runs(answers)), linear, title)
