"""One call to have a trained run: loaded where it exists, trained or continued where not.

In a terminal: `python -m vae_core.experiment --model conv --params p1 --dataset shapes`.
"""

import argparse
import dataclasses
import errno
import inspect
import platform
import re
import shutil
import sys
import textwrap
from collections.abc import Callable
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from vae_core import __version__, checkpoints, evaluation, loss, training
from vae_core.checkpoints import PARTS, RUN, STATE, WEIGHTS, CheckpointError, Run, load_run
from vae_core.data import Dataset, load_dataset
from vae_core.hardware import choose_device, choose_precision, processor
from vae_core.models import MODELS, VAE
from vae_core.parameter_sets import PARAMETER_SETS, ParameterSet, parameter_set
from vae_core.storage import CHECKPOINTS, code_hash, held, say
from vae_core.training import Config, History, TrainingDiverged


def train_or_load(
    model: str,
    params: str | ParameterSet,
    dataset: Dataset,
    seed: int = 0,
    max_epochs: int = 100,
    checkpoints: Path | str = CHECKPOINTS,
    retrain: bool = False,
    device: str | None = None,
    after_epoch: Callable[[Config, History], None] = lambda config, history: None,
    **options: Any,
) -> Run:
    """Return the run of this configuration, trained on this data by this code.

    A finished run of exactly this configuration, data and training code is loaded, or else a
    published one of this configuration and data. One that was interrupted goes on after its last
    finished epoch. Whatever else lies in its folder is kept as `<folder>.previous-<n>`, and a
    line on the error stream says why. Of several processes that ask for one run, one trains.

    Args:
        params: name of a parameter set, or a set of one's own.
        checkpoints: the folder in which runs have their folders.
        retrain: train anew even where the run exists.
        device: "cuda", "mps" or "cpu"; the best there is where it is None.
        after_epoch: called with configuration and history after each epoch.
        options: other fields of `training.Config`, which says what they mean.

    Raises:
        ValueError: a value makes no sense; the message names it.
        TrainingDiverged: the loss became infinite or NaN.
        OSError: a file cannot be written; finished epochs are kept.
    """
    chosen = choose_device(device)
    asked = _asked(model, params, dataset, seed, max_epochs, checkpoints, **options)
    config, folder, identity = asked
    # A state beside a finished run was left by a kill; only who holds the folder may remove it.
    if not (retrain or (folder / STATE).exists()) and (run := _finished(folder, identity)):
        return run
    with held(folder):
        return _train(config, folder, identity, dataset, chosen, retrain, after_epoch)


def finished_run(*arguments: Any, **options: Any) -> Run | None:
    """Return the run that `train_or_load` would load with these arguments, or None."""
    _, folder, identity = _asked(*arguments, **options)
    return _finished(folder, identity)


def run_folder(*arguments: Any, **options: Any) -> Path:
    """Return the folder in which `train_or_load` keeps the run of these arguments."""
    return _asked(*arguments, **options)[1]


def published_run(
    model: str,
    params: str | ParameterSet,
    dataset: str,
    seed: int = 0,
    checkpoints: Path | str = CHECKPOINTS,
    **options: Any,
) -> Run:
    """Load a published run by the name of its data set, which need not be on this machine.

    Raises ValueError where there is no such model or parameter set, CheckpointError where the run
    is damaged, and FileNotFoundError where there is none; the message lists those that there are.
    """
    runs = Path(checkpoints).expanduser() / "published" / dataset
    name = run_name(Config(model, parameter_set(params), seed, **options))
    if not (runs / name / RUN).exists():
        listed = ", ".join(sorted(record.parent.name for record in runs.glob(f"*/{RUN}")))
        raise FileNotFoundError(f"{runs} has no run {name}; it has {listed or 'no run at all'}")
    return load_run(runs / name)


def run_name(config: Config) -> str:
    """Return `<model>-<params>-seed<k>`, and after it every field that is not the default.

    A parameter set of one's own is told by its values too: its name may be that of another. A
    ValueError says that its name cannot be part of a folder's.
    """
    params = config.params
    if not re.fullmatch(r"[\w.-]+", str(params.name)):
        raise ValueError(f"the parameter set's name is {params.name!r}; use letters, digits, . _ -")
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
    methods = [getattr(item, "__func__", item) for kind in classes for item in vars(kind).values()]
    functions = [training.initial_model, training.train, training.train_epoch]
    functions += [training.seeded_generator, training.stopping_epoch, training.best_epoch]
    parts = {
        "the model": filter(inspect.isfunction, methods),
        "the loss": [loss.elbo, loss.kl_per_dimension],
        "the training": functions,
        "the evaluation": [evaluation.evaluate],
    }
    return {
        part: code_hash(*(textwrap.dedent(inspect.getsource(code)) for code in codes))
        for part, codes in parts.items()
    }


def set_aside(folder: Path) -> Path:
    """Rename a folder to `<folder>.previous-<n>`, the first that is free, and return that."""
    n = 1
    while (aside := folder.with_name(f"{folder.name}.previous-{n}")).exists():
        n += 1
    try:
        return folder.rename(aside)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    # A folder in the lower layer of an overlay, as in a container's image, cannot be renamed.
    with TemporaryDirectory(prefix=".aside-", dir=folder.parent) as scratch:
        Path(shutil.copytree(folder, Path(scratch, "copy"))).rename(aside)
    shutil.rmtree(folder)
    return aside


def _asked(model, params, dataset, seed=0, max_epochs=100, checkpoints=CHECKPOINTS, **options):
    """Return what a run is to be, its folder, and what its numbers depend on: its identity."""
    config = Config(model, parameter_set(params), seed, max_epochs, **options)
    facts = {n: getattr(dataset, n) for n in ("name", "folder", "title", "fingerprint", "size")}
    identity = {
        "config": dataclasses.asdict(config),
        "dataset": facts,
        "code": training_code(MODELS[model]),
    }
    return config, Path(checkpoints).expanduser() / dataset.folder / run_name(config), identity


def _found(folder: Path, identity: dict[str, Any]) -> tuple[Any, str, str]:
    """Return what a folder has of a run, and in which settings or data and which code it differs.

    That is the finished run, or what `read_state` returns of one that was begun, or None.
    """
    try:
        if (folder / RUN).exists():
            found = load_run(folder)
            code = (found.record["published"] or found.record)["code"]
            config = dataclasses.asdict(found.config)
            has = {"config": config, "dataset": found.dataset, "code": code}
        elif found := checkpoints.read_state(folder):
            has = found[1]
        else:
            return None, f"its {RUN} is missing" if (folder / WEIGHTS).exists() else "", ""
    except (CheckpointError, FileNotFoundError) as error:
        return None, str(error), ""
    differs = [
        f"{name} {has['config'].get(name)!r} instead of {value!r}"
        for name, value in identity["config"].items()
        if has["config"].get(name) != value
    ]
    if has["dataset"]["fingerprint"] != identity["dataset"]["fingerprint"]:
        differs.append("other images in the data set")
    parts = [part for part, value in identity["code"].items() if has["code"].get(part) != value]
    changed = f"the code of {' and '.join(parts)} has changed" if parts else ""
    return found, ", ".join(differs), changed


def _finished(folder: Path, identity: dict[str, Any]) -> Run | None:
    """Load the run or, where none was begun, a published one, if it is what was asked for."""
    published = folder.parents[1].glob(f"published/*/{folder.name}")
    for place in [folder] if folder.exists() else published:
        run, differs, changed = _found(place, identity)
        if not isinstance(run, Run) or differs or (changed and not run.record["published"]):
            continue
        if changed:
            version = run.record["published"]["version"]
            say(
                f"{place} is shown as version {version} published it; since then {changed}. "
                "retrain=True (make: RETRAIN=1) trains it with what the code is now"
            )
        return run
    return None


def _train(config, folder, identity, dataset, device, retrain, after_epoch) -> Run:
    """Go on with what is left of this very run, or set all else aside and begin; write it."""
    found, differs, changed = _found(folder, identity)
    reason = differs or changed or (found and retrain and "a new training was asked for")
    if isinstance(found, Run) and not reason:
        (folder / STATE).unlink(missing_ok=True)
        return found
    start, threads = None, torch.get_num_threads()
    if found and not reason:
        start, machine = found[0], found[1]["machine"]
        before, kind = machine["threads"][-1], machine["device"]
        if (before, kind) != (threads, device.type):
            say(
                f"{folder} goes on with {threads} threads on {device.type} instead of {before} on "
                f"{kind}: the last digits may differ from those of an uninterrupted training"
            )
            machine |= {"device": device.type, "threads": [*machine["threads"], threads]}
    else:
        precision = choose_precision(config.precision, device)
        machine = {"precision": precision, "device": device.type, "threads": [threads]}
    if reason:
        say(f"{folder} is kept as {set_aside(folder).name} ({reason}); training anew")

    def keep(state):
        checkpoints.write_state(folder, state, {**identity, "machine": machine})
        after_epoch(config, state.history)

    try:
        if start:
            after_epoch(config, start.history)
        model, history = training.train(config, dataset, device, machine["precision"], start, keep)
        summary = _summary(config, model, history, dataset)
        versions = {"vae_core": __version__, "python": platform.python_version()}
        versions |= {"torch": torch.__version__, "numpy": np.__version__}
        record = {"code": identity["code"], "published": None, **machine, "processor": processor()}
        finished = datetime.now(timezone.utc).isoformat(timespec="seconds")
        record |= {"versions": versions, "finished": finished}
        run = Run(model, history, config, identity["dataset"], summary, record, folder)
        checkpoints.write_run(run)
    except KeyboardInterrupt:
        left = checkpoints.read_state(folder)
        epoch = f"epoch {len(left[0].history)} is kept in {folder}" if left else "no epoch is kept"
        say(f"stopped; {epoch}; the same call goes on from there")
        raise
    return load_run(folder)


def _summary(config: Config, model: VAE, history: History, dataset: Dataset) -> dict[str, Any]:
    """Return the figures of the best epoch, those on the test part, and the time it took."""
    best = training.best_epoch([row[f"{config.monitor}_loss"] for row in history])
    kept, seconds = history[best - 1], [row["seconds"] for row in history]
    objective = {"beta": config.beta, "reduction": config.reduction}
    return {
        "epochs": len(history),
        "best_epoch": best,
        "train": {name: kept[f"train_{name}"] for name in PARTS},
        "validation": {name: kept[f"validation_{name}"] for name in PARTS},
        "test": evaluation.evaluate(model, dataset.test, **objective),
        "seconds_per_epoch": float(np.median(seconds)),
        "seconds": sum(seconds),
    }


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
            asked = {"required": field.default is dataclasses.MISSING, "default": field.default}
            parser.add_argument(f"--{field.name.replace('_', '-')}", type=field.type, **asked)
    try:
        chosen = vars(parser.parse_args(arguments))
        of_the_data = {name: chosen.pop(name) for name in ("limit", "fraction", "size")}
        dataset = load_dataset(chosen.pop("dataset"), **of_the_data)
        run = train_or_load(dataset=dataset, **chosen)
    except (ValueError, OSError, TrainingDiverged) as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    text = "{epochs} epochs, best {best_epoch}; training loss {train[loss]:.2f}, test loss "
    text += "{test[loss]:.2f} (reconstruction {test[reconstruction]:.2f}, KL {test[kl]:.2f}) nats "
    text += "per image; {seconds_per_epoch:.1f} s an epoch"
    print(f"{run.folder}: {text.format(**run.summary)}, {run.record['precision']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
