"""One call to have a trained run: loaded where it exists, trained or continued where not.

In a terminal: `python -m vae_core.experiment --model conv --params p1 --dataset shapes`.
"""

import argparse
import dataclasses
import inspect
import platform
import re
import statistics
import sys
import textwrap
from collections.abc import Callable
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from vae_core import __version__, checkpoints, evaluation, loss, training
from vae_core.checkpoints import PARTS, RUN, STATE, CheckpointError, Run, load_run
from vae_core.data import Dataset, load_dataset
from vae_core.hardware import choose_device, choose_precision, processor
from vae_core.models import MODELS, VAE
from vae_core.parameter_sets import PARAMETER_SETS, ParameterSet, parameter_set
from vae_core.storage import CHECKPOINTS, code_hash, held
from vae_core.training import Config, History, State, TrainingDiverged

ANEW = "a new training was asked for"
AfterEpoch = Callable[[Config, History], None]


class Request(NamedTuple):
    """A run that is asked for: what it is, where it lies, and what its numbers depend on."""

    config: Config
    folder: Path
    identity: dict[str, Any]


def train_or_load(
    model: str,
    params: str | ParameterSet,
    dataset: Dataset,
    seed: int = 0,
    max_epochs: int = 100,
    checkpoints: Path | str = CHECKPOINTS,
    retrain: bool = False,
    device: str | None = None,
    after_epoch: AfterEpoch = lambda config, history: None,
    **options: Any,
) -> Run:
    """Return the run of this configuration, trained on this data by this code.

    A finished run of exactly this configuration, data and training code is loaded, or else a
    published one of this configuration and data. One that was interrupted goes on after its last
    finished epoch. Whatever else lies in its folder is kept as `<folder>.previous-<n>`, and a
    line on the error stream says what differs. While another process trains the same run, this
    one waits for it.

    Args:
        model: a name in `MODELS`.
        params: name of a parameter set, or a set of one's own.
        dataset: what to learn from.
        seed: of all draws in the training.
        max_epochs: where the training ends at the latest.
        checkpoints: the folder in which runs have their folders.
        retrain: train anew even where the run exists.
        device: "cuda", "mps" or "cpu"; the best there is where it is None.
        after_epoch: called with the history after each epoch.
        options: other fields of `training.Config`.

    Raises:
        ValueError: a value makes no sense; the message names it.
        TrainingDiverged: the loss became infinite or NaN.
        OSError: a file cannot be written; finished epochs are kept.
    """
    chosen = choose_device(device)
    request = _request(model, params, dataset, seed, max_epochs, checkpoints, **options)
    folder = request.folder
    # A state beside a finished run was left by a kill; only who holds the folder may remove it.
    if not (retrain or (folder / STATE).exists()) and (run := _finished(request)):
        return run
    with held(folder):
        if not retrain and (run := _finished(request)):
            (folder / STATE).unlink(missing_ok=True)
            return run
        return _train(request, dataset, chosen, retrain, after_epoch)


def finished_run(*arguments: Any, **options: Any) -> Run | None:
    """Return the run that `train_or_load` would load with these arguments, or None.

    Raises:
        ValueError: a value makes no sense; the message names it.
    """
    return _finished(_request(*arguments, **options))


def run_folder(*arguments: Any, **options: Any) -> Path:
    """Return the folder in which `train_or_load` keeps the run of these arguments."""
    return _request(*arguments, **options).folder


def published_run(
    model: str,
    params: str | ParameterSet,
    dataset: str,
    seed: int = 0,
    checkpoints: Path | str = CHECKPOINTS,
    **options: Any,
) -> Run:
    """Load a published run by the name of its data set, which need not be on this machine.

    Raises:
        ValueError: there is no such model or parameter set.
        FileNotFoundError: there is no such run; the message lists those that there are.
        CheckpointError: it is damaged.
    """
    runs = _expanded(checkpoints) / "published" / dataset
    name = run_name(Config(model, parameter_set(params), seed, **options))
    there = sorted(record.parent.name for record in runs.glob(f"*/{RUN}"))
    if name not in there:
        listed = ", ".join(there) or "no run at all"
        raise FileNotFoundError(f"{runs} has no run {name}; it has {listed}")
    return load_run(runs / name)


def published_runs(checkpoints: Path | str = CHECKPOINTS) -> list[Run]:
    """Load the runs that come with the repository, by data set, parameter set and model.

    Raises:
        FileNotFoundError: there is none.
        CheckpointError: one of them is damaged.
    """
    runs = [load_run(path.parent) for path in _expanded(checkpoints).glob(f"published/*/*/{RUN}")]
    if not runs:
        raise FileNotFoundError(
            f"{checkpoints} holds no published run; git checkout -- checkpoints brings them back"
        )
    return sorted(runs, key=lambda run: (run.dataset["name"], run.config.params.name, run.folder))


def run_name(config: Config) -> str:
    """Return `<model>-<params>-seed<k>`, and after it every field that is not the default.

    A parameter set of one's own is told by its values too: its name may be that of another.

    Raises:
        ValueError: the name of the parameter set cannot be part of a folder's name.
    """
    params = config.params
    if not isinstance(params.name, str) or not re.fullmatch(r"[\w.-]+", params.name):
        raise ValueError(
            f"the parameter set's name is {params.name!r}; use letters, digits and the signs . _ -"
        )
    name = f"{config.model}-{params.name}"
    if params != PARAMETER_SETS.get(params.name):
        name += f"-{params.batch_size}-{params.learning_rate}-{params.latent_dim}"
    name += f"-seed{config.seed}"
    for field in dataclasses.fields(Config)[3:]:
        value = getattr(config, field.name)
        if value != field.default:
            name += f"-{value}" if isinstance(value, str) else f"-{field.name}{value}"
    return name


@cache
def training_code(model: type[VAE]) -> dict[str, str]:
    """Return hashes over the code that a run's numbers go through, part by part."""
    classes = model.__mro__[: model.__mro__.index(VAE) + 1]
    methods = (value for kind in classes for value in vars(kind).values())
    functions = [training.initial_model, training.train, training.train_epoch]
    functions += [training.seeded_generator, training.stopping_epoch, training.best_epoch]
    parts = {
        "the model": [getattr(method, "__func__", method) for method in methods],
        "the loss": [loss.elbo, loss.kl_per_dimension],
        "the training": functions,
        "the evaluation": [evaluation.evaluate],
    }
    return {part: code_hash(*map(_source, codes)) for part, codes in parts.items()}


def _source(code: Any) -> str:
    return textwrap.dedent(inspect.getsource(code)) if inspect.isfunction(code) else ""


def _expanded(folder: Path | str) -> Path:
    return Path(folder).expanduser()


def _request(
    model, params, dataset, seed=0, max_epochs=100, checkpoints=CHECKPOINTS, **options
) -> Request:
    known = [field.name for field in dataclasses.fields(Config)]
    if unknown := sorted(options.keys() - known):
        raise ValueError(f"unknown option {unknown[0]!r}; choose one of {', '.join(known)}")
    config = Config(model, parameter_set(params), seed, max_epochs, **options)
    facts = ("name", "folder", "title", "fingerprint", "size")
    identity = {
        "config": dataclasses.asdict(config),
        "dataset": {name: getattr(dataset, name) for name in facts},
        "code": training_code(MODELS[model]),
    }
    return Request(config, _expanded(checkpoints) / dataset.folder / run_name(config), identity)


def _identity(run: Run) -> dict[str, Any]:
    code = (run.record["published"] or run.record)["code"]
    return {"config": dataclasses.asdict(run.config), "dataset": run.dataset, "code": code}


def _finished(request: Request) -> Run | None:
    """Load the run or, where none was begun, a published one, if it is what was asked for."""
    own, checkpoints = request.folder, request.folder.parent.parent
    for folder in [own] if own.exists() else checkpoints.glob(f"published/*/{own.name}"):
        try:
            run = load_run(folder)
        except (CheckpointError, FileNotFoundError):
            continue
        if _difference(request.identity, _identity(run)):
            continue
        changed, published = _changed(request.identity, _identity(run)), run.record["published"]
        if changed and published:
            print(
                f"{folder} is shown as version {published['version']} published it; since then "
                f"{changed}. retrain=True (make: RETRAIN=1) trains it with what the code is now",
                file=sys.stderr,
            )
        if published or not changed:
            return run
    return None


def _difference(asked: dict[str, Any], found: dict[str, Any]) -> str:
    """Say in which configuration or data a run differs from the one asked for."""
    differing = [
        f"{name} {found['config'].get(name)!r} instead of {value!r}"
        for name, value in asked["config"].items()
        if found["config"].get(name) != value
    ]
    if found["dataset"]["fingerprint"] != asked["dataset"]["fingerprint"]:
        differing.append("other images in the data set")
    return ", ".join(differing)


def _changed(asked: dict[str, Any], found: dict[str, Any]) -> str:
    """Say which parts of the training code have changed since a run."""
    parts = [part for part, code in asked["code"].items() if found["code"].get(part) != code]
    return f"the code of {' and '.join(parts)} has changed" if parts else ""


def _train(
    request: Request, dataset: Dataset, device: torch.device, retrain: bool, after_epoch: AfterEpoch
) -> Run:
    config, folder, identity = request
    start, machine = _start(request, retrain)
    threads = torch.get_num_threads()
    if not start:
        precision = choose_precision(config.precision, device)
        machine = {"precision": precision, "device": device.type, "threads": [threads]}
    elif machine["threads"][-1] != threads or machine["device"] != device.type:
        print(
            f"{folder} goes on with {threads} threads on {device.type} instead of "
            f"{machine['threads'][-1]} on {machine['device']}: its numbers may differ in the last "
            "digits from those of an uninterrupted training",
            file=sys.stderr,
        )
        machine = {**machine, "device": device.type, "threads": [*machine["threads"], threads]}

    def keep(state: State) -> None:
        checkpoints.write_state(folder, state, {**identity, "machine": machine})
        after_epoch(config, state.history)

    try:
        if start:
            after_epoch(config, start.history)
        model, history = training.train(config, dataset, device, machine["precision"], start, keep)
        summary = summarize(config, model, history, dataset)
        record = {
            "code": identity["code"],
            "published": None,
            **machine,
            "processor": processor(),
            "versions": {
                "vae_core": __version__,
                "python": platform.python_version(),
                "torch": torch.__version__,
                "numpy": np.__version__,
            },
            "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        checkpoints.write_run(folder, model, history, config, identity["dataset"], summary, record)
    except KeyboardInterrupt:
        last = checkpoints.read_state(folder)
        kept = (
            f"epoch {len(last[0].history)} is kept in {folder}" if last else "no epoch is finished"
        )
        print(f"stopped; {kept}; the same call goes on from there", file=sys.stderr)
        raise
    return load_run(folder)


def summarize(config: Config, model: VAE, history: History, dataset: Dataset) -> dict[str, Any]:
    """Return the figures of the best epoch, those on the test part, and the time it took."""
    best = training.best_epoch([row[f"{config.monitor}_loss"] for row in history])
    kept, seconds = history[best - 1], [row["seconds"] for row in history]
    return {
        "epochs": len(history),
        "best_epoch": best,
        "train": {name: kept[f"train_{name}"] for name in PARTS},
        "validation": {name: kept[f"validation_{name}"] for name in PARTS},
        "test": evaluation.evaluate(
            model, dataset.test, beta=config.beta, reduction=config.reduction
        ),
        "seconds_per_epoch": statistics.median(seconds),
        "seconds": sum(seconds),
    }


def _start(request: Request, retrain: bool) -> tuple[State | None, dict[str, Any]]:
    """Return the state of an interrupted training of this very run; set all else aside."""
    folder, asked, reason = request.folder, request.identity, ""
    try:
        if (folder / RUN).exists():
            found = _identity(load_run(folder))
            reason = _difference(asked, found) or _changed(asked, found) or ANEW
        elif left := checkpoints.read_state(folder):
            state, found = left
            reason = ANEW if retrain else _difference(asked, found) or _changed(asked, found)
            if not reason:
                return state, found["machine"]
        elif (folder / checkpoints.WEIGHTS).exists():
            reason = f"its {RUN} is missing"
    except (CheckpointError, FileNotFoundError) as error:
        reason = str(error)
    if reason:
        aside = set_aside(folder)
        print(f"{folder} is kept as {aside.name} ({reason}); training anew", file=sys.stderr)
    return None, {}


def set_aside(folder: Path) -> Path:
    """Rename a folder to `<folder>.previous-<n>`, the first that is free, and return that."""
    n = 1
    while (aside := folder.with_name(f"{folder.name}.previous-{n}")).exists():
        n += 1
    return folder.rename(aside)


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        raise ValueError(f"{message} ({self.prog} --help lists the options)")


def main(arguments: list[str] | None = None) -> int:
    """Make one run from a terminal; return the exit code."""
    parser = _Parser(prog="python -m vae_core.experiment", description="Train one run, or load it.")
    parser.add_argument("--dataset", default="shapes", help="a name or a path")
    parser.add_argument("--limit", type=int, help="at most so many training images")
    parser.add_argument("--fraction", type=float, default=1.0, help="share of the training part")
    parser.add_argument("--size", type=int, default=32, help="height and width of the images")
    parser.add_argument("--params", default="p1", help=" or ".join(PARAMETER_SETS))
    parser.add_argument("--device", help="cuda, mps or cpu")
    parser.add_argument("--checkpoints", type=Path, default=CHECKPOINTS)
    parser.add_argument("--retrain", action="store_true")
    for field in dataclasses.fields(Config):
        if field.name != "params":
            option, missing = f"--{field.name.replace('_', '-')}", dataclasses.MISSING
            default = {"required": True} if field.default is missing else {"default": field.default}
            parser.add_argument(option, type=field.type, **default)
    try:
        chosen = vars(parser.parse_args(arguments))
        of_the_data = {name: chosen.pop(name) for name in ("limit", "fraction", "size")}
        dataset = load_dataset(chosen.pop("dataset"), **of_the_data)
        run = train_or_load(dataset=dataset, **chosen)
    except (ValueError, OSError, TrainingDiverged) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    best, test = run.summary["train"], run.summary["test"]
    print(
        f"{run.folder}: {run.summary['epochs']} epochs, best {run.summary['best_epoch']}; "
        f"training loss {best['loss']:.2f}, test loss {test['loss']:.2f} "
        f"(reconstruction {test['reconstruction']:.2f}, KL {test['kl']:.2f}) nats per image; "
        f"{run.summary['seconds_per_epoch']:.1f} s an epoch, {run.record['precision']}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
