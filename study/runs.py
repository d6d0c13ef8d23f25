"""The one list of the study's runs: `make report`, `make study` and `make publish` ask it."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from dask.system import CPU_COUNT

from study.board import clock
from vae_core.checkpoints import RUN, Run
from vae_core.data import NAMES, facts, load_dataset
from vae_core.experiment import finished_run, run_folder, set_aside
from vae_core.hardware import choose_device, choose_precision
from vae_core.models import MODELS
from vae_core.parameter_sets import ParameterSet, parameter_set
from vae_core.storage import CHECKPOINTS, PROJECT, held, in_one_line, write
from vae_core.tables import read_results
from vae_core.training import VALUES, Config, train

NOTEBOOKS = PROJECT / "notebooks"
NOTE = "retraining.txt"
YES_OR_NO = {"1": True, "yes": True, "true": True, "0": False, "no": False, "false": False}
CHOICES = {name: YES_OR_NO | {"": False} for name in ("retrain", "yes")}
CHOICES["precision"] = {name: name for name in VALUES["precision"]}
_load = lru_cache(maxsize=2)(load_dataset)  # a study's two; a sweep's may be more than memory holds


@dataclass(frozen=True)
class Settings:
    """What `make` was asked for; `from_environment` checks each setting, once."""

    dataset: str = "shapes"  # images of the comparison: a data set's name, or an absolute path
    faces: str = "faces"  # images of 04, likewise
    sets: tuple[str, ...] = ("p1", "p2", "p3")  # names of parameter sets
    seed: int = 0  # of all draws in the trainings
    seeds: tuple[int, ...] = (0,)  # those that 02 and `make study` compare
    max_epochs: int | None = None  # where a training ends at the latest; None: as suits the data
    limit: int | None = None  # at most so many training images
    size: int = 32  # height and width of the images
    precision: str = "auto"
    retrain: bool = False  # train anew what is there
    report: Path = PROJECT / "report"  # the folder of the pages
    results: Path | None = None  # the table that `make publish` takes
    checkpoints: Path = CHECKPOINTS  # the folder of all runs
    workers: int | None = None  # trainings and notebooks at a time; None: one a core
    scheduler: str | None = None  # address of a Dask cluster; None: this machine
    grid: str = ""  # what `make sweep` varies
    yes: bool = False  # start however many runs it is

    @classmethod
    def from_environment(cls, environment=os.environ, **defaults) -> "Settings":
        """Read settings from `VAE_<NAME>`; a ValueError says in one line which makes no sense."""
        given = {}
        for name in cls.__annotations__:
            text = environment.get(f"VAE_{name.upper()}")
            try:
                if text is not None:
                    given[name] = _read(name, text)
            except ValueError as error:
                reason = "it is not UTF-8" if isinstance(error, UnicodeError) else error
                raise ValueError(f"{name.upper()} is {text!r}: {in_one_line(reason)}") from None
        if "seed" in given:
            defaults["seeds"] = (given["seed"],)
        chosen = {"seeds": cls.seeds, **defaults, **given}
        return cls(**{"seed": chosen["seeds"][0], **chosen})

    def task(self, model, params, dataset, seed, **options) -> "Task":
        """Return a run with these settings, but for `options` of `Config` and of `load_dataset`."""
        known = facts(dataset)
        usual = {"max_epochs": self.max_epochs or known.epochs, "precision": self.precision}
        data = {"limit": self.limit, "fraction": known.fraction, "size": self.size, "permuted": 0.0}
        data = {name: options.pop(name, value) for name, value in data.items()}
        return Task(model, params, dataset, seed, usual | options, **data)


def _read(name: str, text: str) -> Any:
    text.encode()  # a file's name need not be UTF-8, but pages and run.json are
    if known := CHOICES.get(name):
        if text.strip().lower() not in known:
            raise ValueError(f"choose one of {', '.join(filter(None, known))}")
        return known[text.strip().lower()]
    if not text.strip():
        raise ValueError("give a value, or leave the setting out")
    if name in ("scheduler", "grid") or (name in ("dataset", "faces") and text in NAMES):
        return text
    if name in ("dataset", "faces", "report", "results", "checkpoints"):
        path = Path(os.path.abspath(os.path.expanduser(text)))  # notebooks stand elsewhere
        return str(path) if name in ("dataset", "faces") else path
    if name in ("sets", "seeds"):
        read = (lambda word: parameter_set(word).name) if name == "sets" else _whole
        return tuple(dict.fromkeys(map(read, re.split(r"[\s,]+", text.strip(", \t\n")))))
    return _whole(text, least=int(name != "seed"))


def _whole(text: str, least: int = 0) -> int:
    if not re.fullmatch("[0-9]{1,18}", text.strip()) or int(text) < least:
        raise ValueError(f"give a whole number of at least {least}")
    return int(text)


@dataclass(frozen=True)
class Task:
    """One run of the study; `options` are the arguments of `train_or_load` without own fields."""

    model: str
    params: str | ParameterSet
    dataset: str  # a name or an absolute path
    seed: int
    options: dict[str, Any] = field(default_factory=dict, hash=False)
    limit: int | None = None
    fraction: float = 1.0
    size: int = 32
    permuted: float = 0.0

    @property
    def label(self) -> str:
        """What people call the run."""
        params = parameter_set(self.params)
        named = f"{MODELS[self.model].title} {params.name} on {facts(self.dataset).title}"
        usual = {"precision"} if "schedule" in self.options else {"precision", "max_epochs"}
        odd = {name: value for name, value in self.options.items() if name not in usual}
        odd |= {"permuted": self.permuted} if self.permuted else {}
        odd |= {"fraction": self.fraction} if self.fraction < 1 else {}
        if isinstance(self.params, ParameterSet):
            odd |= {name: value for name, value in vars(params).items() if name != "name"}
        return f"{named}, seed {self.seed}" + "".join(f", {n} {v}" for n, v in odd.items())

    @property
    def config(self) -> Config:
        """What the run is asked to be; raises as `Config` and `parameter_set` do."""
        return Config(self.model, parameter_set(self.params), self.seed, **self.options)

    @property
    def arguments(self) -> dict[str, Any]:
        """Those of `train_or_load`; the data set is loaded once, and raises as it does."""
        options = {name: getattr(self, name) for name in ("limit", "fraction", "size", "permuted")}
        named = {"model": self.model, "params": self.params, "seed": self.seed}
        return named | {"dataset": _load(self.dataset, **options)} | self.options

    def folder(self, checkpoints: Path) -> Path:
        """Return where the run is trained."""
        return run_folder(**self.arguments, checkpoints=checkpoints)

    def finished(self, checkpoints: Path) -> Run | None:
        """Return the run if it is there, trained or published."""
        return finished_run(**self.arguments, checkpoints=checkpoints)


@dataclass(frozen=True)
class Page:
    """A notebook, the parameters that it is executed with, and the runs that it needs."""

    name: str
    notebook: Path
    parameters: dict[str, Any]
    tasks: list[Task]


def pages(settings: Settings) -> list[Page]:
    """List the report's pages in their order; every notebook in `notebooks/` is one at least."""
    sets, dataset, faces = settings.sets, settings.dataset, settings.faces
    run = partial(settings.task, dataset=dataset, seed=settings.seed)
    seeds = list(dict.fromkeys((settings.seed, *settings.seeds)))
    both = {(p, k): [run(m, p, seed=k) for m in ("conv", "fc")] for p in sets for k in seeds}
    for name in sets:  # solved, not trained: every seed is the same
        both[name, settings.seed].append(run("linear", name))
    of_faces = [run("conv", "p2", dataset=faces, seed=seed) for seed in seeds]
    of_faces.append(run("linear", "p2", dataset=faces))
    of_each_set = [(name, dataset, both[name, settings.seed]) for name in sets]
    of_all = [task for k in settings.seeds for name in sets for task in both[name, k]]
    balances = [run("conv", "p2", **loss) for loss in ({}, {"reduction": "mean"}, {"beta": 1e-4})]
    # The stored answers, on published runs that have learned all there is: 00 and 06 to 09 have no
    # other, and 04, 05 and 10 show theirs where nothing else was asked for.
    stored = {"00_why_variational": ("plane", "shapes"), "09_holes_and_meaning": ("p2", "shapes")}
    answers = ("06_fair_comparison", "07_what_a_convolution_knows", "08_rate_distortion")
    stored |= dict.fromkeys(answers, ("p2", "published"))
    asked = (dataset, faces, settings.seed, settings.max_epochs, settings.limit, settings.size)
    if asked == ("shapes", "faces", 0, None, None, 32) and not settings.retrain:
        stored |= {"04_celeba": ("p2", "published"), "05_posterior_collapse": ("p2", "shapes")}
        stored["10_explorer"] = ("p2", "published")
    study = {
        "01_fc_vs_cvae": of_each_set,
        "02_tuning": [(" ".join(sets), dataset, of_all)],
        "03_interpolation": of_each_set,
        "04_celeba": [("p2", faces, of_faces)],
        "05_posterior_collapse": [("p2", dataset, balances)],
    }
    listed = []
    for notebook in sorted(NOTEBOOKS.glob("[0-9]*.py")):
        if notebook.stem in stored:
            used = dict(zip(("params", "dataset"), stored[notebook.stem], strict=True))
            listed.append(Page(notebook.stem, notebook, used, []))
            continue
        shown = study.get(notebook.stem, [(sets[0], dataset, [])])
        for params, data, tasks in shown:
            used = {"params": params, "dataset": data, "seed": settings.seed}
            used |= {"max_epochs": settings.max_epochs or facts(data).epochs}
            used |= {name: getattr(settings, name) for name in ("limit", "size", "precision")}
            if notebook.stem == "02_tuning":
                used["seeds"] = " ".join(map(str, settings.seeds))
            name = notebook.stem + f"-{params}" * (shown is of_each_set)
            listed.append(Page(name, notebook, used, tasks))
    if not listed:
        raise FileNotFoundError(f"{NOTEBOOKS} has no notebooks; this works in a clone alone")
    return listed


def study_tasks(settings: Settings) -> list[Task]:
    """List what the pages need, each run once, and the first seed first."""
    tasks = dict.fromkeys(task for page in pages(settings) for task in page.tasks)
    return sorted(tasks, key=lambda task: task.seed != settings.seed)


def announce(tasks: list[Task], waiting: list[Task], settings: Settings) -> None:
    """Print how many runs there are, how many of them wait to be trained, and for how long."""
    left = estimate(waiting, settings) if waiting else "nothing to train"
    print(f"{len(tasks)} runs, {len(waiting)} of them to be trained: {left}", flush=True)


def estimate(tasks: Iterable[Task], settings: Settings) -> str:
    """Say how long trainings take, by epochs measured here and counted in the published study."""
    published = read_results(PROJECT / "figures" / "results.csv")
    epochs = published.groupby(["model", "params", "beta", "reduction"])["epochs"].mean()
    measured, seconds, threads = {}, [], torch.get_num_threads()
    torch.set_num_threads(1)  # as in a worker
    device = choose_device()
    for task in tasks:
        data, config = task.arguments["dataset"], task.config
        params = config.params
        kind = task.model, params.batch_size, params.latent_dim, data.size
        if kind not in measured:
            few = replace(data, train=data.train[:2048], validation=data.validation[:128])
            precision = choose_precision(config.precision, device)
            _, history = train(replace(config, max_epochs=2), few, device, precision)
            measured[kind] = history[-1]["seconds"] / len(few.train)
        same = task.model, params.name, config.beta, config.reduction
        usual = epochs.get(same, config.max_epochs) if config.patience else config.max_epochs
        expected = min(config.max_epochs, usual)
        seconds.append(measured[kind] * len(data.train) * expected)
    torch.set_num_threads(threads)
    workers = settings.workers or CPU_COUNT
    return f"{clock(max(sum(seconds) / workers, *seconds))}, {workers} at a time"


def begin_anew(tasks: Iterable[Task], checkpoints: Path) -> None:
    """Set aside what is there of these runs, so that they will be trained anew.

    What has begun is noted until `end_anew`: the same call after an interruption goes on instead
    of beginning a second time.
    """
    note = checkpoints / NOTE
    begun = note.read_text(encoding="utf-8").splitlines() if note.exists() else []
    if begun:
        print(f"going on with what {note} says; delete it to begin a second time")
    for folder in (task.folder(checkpoints) for task in tasks):
        name = folder.relative_to(checkpoints).as_posix()
        if name not in begun:
            with held(folder):
                if folder.exists():
                    print(f"{folder} is kept as {set_aside(folder).name}")
                folder.mkdir(parents=True)  # where it is, no published run takes its place
            begun.append(name)
            write(note, "\n".join(begun))


def end_anew(checkpoints: Path) -> None:
    """Forget what `begin_anew` noted if all of it is finished."""
    note = checkpoints / NOTE
    if note.exists():
        names = note.read_text(encoding="utf-8").splitlines()
        if all((checkpoints / name / RUN).exists() for name in names):
            note.unlink()
