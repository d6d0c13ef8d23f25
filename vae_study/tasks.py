"""The one list of runs: what `make report`, `make study` and `make publish` train and show."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from vae_core.config import Config, ParameterSet, parameter_set
from vae_core.data import dataset_info, load_dataset
from vae_core.models import MODELS
from vae_core.runs import Run, finished_run, run_folder
from vae_core.runs.checkpoints import move_to_backup
from vae_core.runs.hardware import choose_device, choose_precision
from vae_core.runs.results import read_results
from vae_core.storage import PROJECT, locked
from vae_core.training import TrainingDiverged, train
from vae_study.progress import format_duration
from vae_study.settings import Settings

DATASET_OPTIONS = ("limit", "fraction", "size", "permuted")  # of `load_dataset`
MEASURED_IMAGES, MEASURED_EPOCHS = 2048, 2  # of the trainings that are timed

# Two data sets fit into memory, those of a study; a sweep may have any number.
_load_dataset = lru_cache(maxsize=2)(load_dataset)


@dataclass(frozen=True)
class Task:
    """One run: a model, a parameter set, a data set, a seed, and what else it depends on."""

    model: str
    params: str | ParameterSet
    dataset: str  # a name or an absolute path
    seed: int
    options: dict[str, Any] = field(default_factory=dict, hash=False)  # other fields of `Config`
    # options of `load_dataset`
    limit: int | None = None
    fraction: float = 1.0
    size: int = 32
    permuted: float = 0.0

    @property
    def label(self) -> str:
        """The name of the run in messages: model, parameter set, data set, seed, odd options."""
        params = parameter_set(self.params)
        title = f"{MODELS[self.model].title} {params.name} on {dataset_info(self.dataset).title}"
        options = [f"{name} {value}" for name, value in self._unusual_options().items()]
        return ", ".join([title, f"seed {self.seed}", *options])

    def _unusual_options(self) -> dict[str, Any]:
        """Return the options that tell the run from the one with the usual options."""
        unusual = dict(self.options)
        unusual.pop("precision", None)
        if "schedule" not in unusual:  # where early stopping ends the training
            unusual.pop("max_epochs", None)
        if self.permuted > 0:
            unusual["permuted"] = self.permuted
        if self.fraction < 1:
            unusual["fraction"] = self.fraction
        if isinstance(self.params, ParameterSet):
            values = dict(vars(self.params))
            values.pop("name")
            unusual |= values
        return unusual

    @property
    def config(self) -> Config:
        """The configuration of the run; raises ValueError where a value is invalid."""
        return Config(self.model, parameter_set(self.params), self.seed, **self.options)

    def check(self) -> None:
        """Raise ValueError, which names the field, where a value of `config` is invalid."""
        _ = self.config

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of `train_or_load`, with the loaded data set; raises as `load_dataset`."""
        dataset_options = {name: getattr(self, name) for name in DATASET_OPTIONS}
        return {
            "model": self.model,
            "params": self.params,
            "dataset": _load_dataset(self.dataset, **dataset_options),
            "seed": self.seed,
            **self.options,
        }

    def folder(self, checkpoints: Path) -> Path:
        """Return the folder in which the run is trained."""
        return run_folder(**self.arguments, checkpoints=checkpoints)

    def finished(self, checkpoints: Path) -> Run | None:
        """Return the run if it is finished, trained here or published, or None."""
        return finished_run(**self.arguments, checkpoints=checkpoints)


def make_task(
    settings: Settings,
    model: str,
    params: str | ParameterSet,
    dataset: str,
    seed: int,
    **options: Any,
) -> Task:
    """Return a task with the settings' options; `options` of `Config` and `Task` replace them."""
    info = dataset_info(dataset)
    dataset_options = {"limit": settings.limit, "fraction": info.fraction, "size": settings.size}
    for name in DATASET_OPTIONS:
        if name in options:
            dataset_options[name] = options.pop(name)
    usual = {"max_epochs": settings.max_epochs or info.epochs, "precision": settings.precision}
    return Task(model, params, dataset, seed, usual | options, **dataset_options)


def comparison_tasks(settings: Settings, params: str, seed: int) -> list[Task]:
    """List the runs that compare the CVAE, the FC-VAE and, at the first seed, the linear VAE."""
    models = ["conv", "fc"]
    if seed == settings.seed:  # the linear VAE has a closed form, which is the same for every seed
        models.append("linear")
    return [make_task(settings, model, params, settings.dataset, seed) for model in models]


def face_tasks(settings: Settings) -> list[Task]:
    """List the runs on faces: the CVAE at every seed, and the linear VAE."""
    seeds = dict.fromkeys([settings.seed, *settings.seeds])
    tasks = [make_task(settings, "conv", "p2", settings.faces, seed) for seed in seeds]
    return [*tasks, make_task(settings, "linear", "p2", settings.faces, settings.seed)]


def collapse_tasks(settings: Settings) -> list[Task]:
    """List the runs of one CVAE with both terms of the loss in balance, and with one too strong."""
    losses = ({}, {"reduction": "mean"}, {"beta": 1e-4})
    dataset, seed = settings.dataset, settings.seed
    return [make_task(settings, "conv", "p2", dataset, seed, **loss) for loss in losses]


def study_tasks(settings: Settings) -> list[Task]:
    """List the runs that the pages show and that can be trained, each once, the first seed first.

    Pages that show published runs only need none.
    """
    tasks = []
    for seed in dict.fromkeys([settings.seed, *settings.seeds]):
        for params in settings.sets:
            tasks += comparison_tasks(settings, params, seed)
    if settings.trains_all_pages:
        tasks += face_tasks(settings) + collapse_tasks(settings)
    different = dict.fromkeys(tasks)
    return sorted(different, key=lambda task: task.seed != settings.seed)


def announce(tasks: list[Task], untrained: list[Task], settings: Settings) -> None:
    """Print how many runs there are, how many have to be trained, and how long that will take."""
    duration = estimate_duration(untrained, settings) if untrained else "nothing to train"
    print(f"{len(tasks)} runs, {len(untrained)} of them to be trained: {duration}", flush=True)


def estimate_duration(tasks: list[Task], settings: Settings) -> str:
    """Return how long the trainings will take, from epochs that are timed on this machine.

    Early stopping is expected where it ended the published runs, on average.
    """
    usual_epochs = published_epochs()
    measured: dict[tuple, float] = {}  # seconds for each image, by what they depend on
    durations = []
    for task in tasks:
        dataset = task.arguments["dataset"]
        params = parameter_set(task.params)
        key = (task.model, params.batch_size, params.latent_dim, dataset.size)
        if key not in measured:
            measured[key] = measure_or_skip(task)
        images = len(dataset.train) * expected_epochs(task.config, usual_epochs)
        durations.append(measured[key] * images)
    workers = settings.training_workers
    seconds = max(sum(durations) / workers, *durations)
    return f"{format_duration(seconds)}, {workers} at a time"


def measure_or_skip(task: Task) -> float:
    """Return the seconds for one image; 0 where the run cannot be trained, which it says later."""
    try:
        return measure_seconds(task)
    except (TrainingDiverged, ValueError, RuntimeError, MemoryError):
        return 0.0


def measure_seconds(task: Task) -> float:
    """Return the seconds for one image in a training of two short epochs, with one thread."""
    dataset, device = task.arguments["dataset"], choose_device()
    config = replace(task.config, max_epochs=MEASURED_EPOCHS)
    images, validation = dataset.train[:MEASURED_IMAGES], dataset.validation[:128]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a worker
    try:
        choice = choose_precision(config, tuple(images.shape[1:]), device)
        _, history = train(config, images, validation, device, precision=choice.precision)
    finally:
        torch.set_num_threads(threads)
    return history[-1]["seconds"] / len(images)


def published_epochs() -> pd.Series:
    """Return the mean number of epochs of the published runs by what early stopping depends on."""
    table = PROJECT / "figures" / "results.csv"
    if not table.exists():
        return pd.Series(dtype=float)
    published = read_results(table)
    return published.groupby(["model", "params", "beta", "reduction"])["epochs"].mean()


def expected_epochs(config: Config, usual_epochs: pd.Series) -> float:
    """Return how many epochs a training will probably take; `usual_epochs` as published."""
    if config.patience == 0:
        return config.max_epochs
    key = (config.model, config.params.name, config.beta, config.reduction)
    return min(config.max_epochs, usual_epochs.get(key, config.max_epochs))


def back_up_runs(tasks: Iterable[Task], checkpoints: Path) -> None:
    """Move what exists of these runs to a backup, so that they will be trained again.

    Nothing is lost: a run's folder is kept as `<folder>.previous-<n>`.
    """
    for task in tasks:
        folder = task.folder(checkpoints)
        with locked(folder):
            if folder.exists() and any(folder.iterdir()):
                print(f"{folder} is kept as {move_to_backup(folder).name}")
            # An empty folder, so that no published run is shown in its place.
            folder.mkdir(parents=True, exist_ok=True)
