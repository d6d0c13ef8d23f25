"""One call to have a trained run: loaded where it exists, trained or continued where not.

In a terminal: `python -m vae_core.experiment --model conv --params p1 --dataset shapes`.
"""

import argparse
import dataclasses
import platform
import re
import shutil
import statistics
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vae_core import __version__, checkpoints, evaluation, loss, models, training
from vae_core.checkpoints import RUN, STATE, CheckpointError, History, Run, State, load_run
from vae_core.data import Dataset, load_dataset
from vae_core.evaluation import evaluate
from vae_core.files import CHECKPOINTS, code_hash, held
from vae_core.models import MODELS
from vae_core.parameter_sets import PARAMETER_SETS, ParameterSet, parameter_set
from vae_core.training import (
    MONITORS,
    PRECISIONS,
    Config,
    TrainingDiverged,
    best_epoch,
    choose_device,
    choose_precision,
    monitored,
    train,
)


def train_or_load(
    model: str,
    params: str | ParameterSet,
    dataset: Dataset,
    seed: int = 0,
    max_epochs: int = 100,
    checkpoints: Path | str = CHECKPOINTS,
    retrain: bool = False,
    device: str | None = None,
    **options: Any,
) -> Run:
    """Return the run of this configuration, trained on this data by this code.

    A finished run of exactly this configuration, data and training code is loaded. One that was
    interrupted goes on after its last finished epoch. Whatever else lies in its folder is kept
    as `<folder>.previous`, and a line on the error stream says what differs. While another
    process trains the same run, this one waits for it.

    Args:
        model: "fc" or "conv".
        params: name of a parameter set, or a set of one's own.
        dataset: what to learn from.
        seed: of all draws in the training.
        max_epochs: where the training ends at the latest.
        checkpoints: the folder in which runs have their folders.
        retrain: train anew even where the run exists; it is kept as `<folder>.previous`.
        device: "cuda", "mps" or "cpu"; the best there is where it is None.
        options: other fields of `training.Config`.

    Raises:
        ValueError: a value makes no sense; the message names it.
        TrainingDiverged: the loss became infinite or NaN.
        OSError: a file cannot be written; finished epochs are kept.
    """
    config, folder, identity = _request(
        model, params, dataset, seed, max_epochs, checkpoints, options
    )
    chosen_device = choose_device(device)
    # A state beside a finished run was left by a kill; only who holds the folder may remove it.
    if not (retrain or (folder / STATE).exists()) and (run := _finished(folder, identity)):
        return run
    with held(folder):
        if not retrain and (run := _finished(folder, identity)):
            (folder / STATE).unlink(missing_ok=True)
            return run
        state = _state_to_continue(folder, identity, retrain)
        return _train(config, dataset, chosen_device, folder, identity, state)


def finished_run(
    model: str,
    params: str | ParameterSet,
    dataset: Dataset,
    seed: int = 0,
    max_epochs: int = 100,
    checkpoints: Path | str = CHECKPOINTS,
    **options: Any,
) -> Run | None:
    """Return the run that `train_or_load` would load, or None where it would train.

    Raises:
        ValueError: a value makes no sense; the message names it.
    """
    _, folder, identity = _request(model, params, dataset, seed, max_epochs, checkpoints, options)
    return _finished(folder, identity)


def published_run(
    model: str, params: str, dataset: str, seed: int = 0, checkpoints: Path | str = CHECKPOINTS
) -> Run:
    """Load a run by the name of its data set, which need not be on this machine.

    Raises:
        ValueError: there is no such model or parameter set.
        FileNotFoundError: there is no such run; the message lists those that there are.
        CheckpointError: it is damaged.
    """
    runs = Path(checkpoints) / dataset
    name = run_name(Config(model, parameter_set(params), seed))
    there = sorted(record.parent.name for record in runs.glob(f"*/{RUN}"))
    if name not in there:
        listed = ", ".join(there) or "no run at all"
        raise FileNotFoundError(f"{runs} has no run {name}; it has {listed}")
    return load_run(runs / name)


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
            name += f"-{field.name}{value}" if not isinstance(value, str) else f"-{value}"
    return name


def training_code() -> str:
    """Return a hash over the code that a run's numbers go through; see `files.code_hash`."""
    return code_hash(models, loss, evaluation, training)


def _request(
    model: str,
    params: str | ParameterSet,
    dataset: Dataset,
    seed: int,
    max_epochs: int,
    checkpoints: Path | str,
    options: dict[str, Any],
) -> tuple[Config, Path, dict[str, Any]]:
    """Return the configuration that was asked for, its folder, and all that its run must match."""
    unknown = options.keys() - {field.name for field in dataclasses.fields(Config)}
    if unknown:
        raise ValueError(f"unknown option {sorted(unknown)[0]!r}; see vae_core.training.Config")
    config = Config(model, parameter_set(params), seed, max_epochs, **options)
    identity = {
        "config": {
            **dataclasses.asdict(config),
            "dataset": dataset.name,
            "fingerprint": dataset.fingerprint,
        },
        "code": training_code(),
    }
    return config, Path(checkpoints) / dataset.name / run_name(config), identity


def processor() -> str:
    """Return the processor's name, as well as it can be known."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _train(
    config: Config,
    dataset: Dataset,
    device: torch.device,
    folder: Path,
    identity: dict[str, Any],
    state: State | None,
) -> Run:
    def keep(tensors: dict[str, torch.Tensor], history: History) -> None:
        checkpoints.write_state(folder, State(tensors, history, identity))

    try:
        weights, history = train(config, dataset, device, state, keep)
        _finish(config, dataset, device, folder, identity, weights, history)
    except KeyboardInterrupt:
        last = checkpoints.read_state(folder)
        where = f"epoch {len(last.history)} is kept in {folder}" if last else "no epoch is finished"
        print(f"stopped; {where}; the same call goes on from there", file=sys.stderr)
        raise
    return load_run(folder)


def _finish(
    config: Config,
    dataset: Dataset,
    device: torch.device,
    folder: Path,
    identity: dict[str, Any],
    weights: dict[str, torch.Tensor],
    history: History,
) -> None:
    """Evaluate on the test part and write the run."""
    best = best_epoch(monitored(config, history))
    row = history[best - 1]
    trained = models.build_model(config.model, config.params.latent_dim)
    trained.load_state_dict(weights)
    parts = ("loss", "reconstruction", "kl")
    summary = {
        "epochs": len(history),
        "best_epoch": best,
        **{
            part: {name: row[f"{part}_{name}"] for name in parts}
            for part in ("train", "validation")
        },
        "test": evaluate(trained, dataset.test, beta=config.beta, reduction=config.reduction),
        "seconds_per_epoch": statistics.median(row["seconds"] for row in history),
        "seconds": sum(row["seconds"] for row in history),
    }
    record = {
        "code": identity["code"],
        "published": None,
        "precision": choose_precision(config.precision, device),
        "device": device.type,
        "threads": torch.get_num_threads(),
        "processor": processor(),
        "versions": {
            "vae_core": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    checkpoints.write_run(folder, weights, history, identity["config"], summary, record)


def _finished(folder: Path, identity: dict[str, Any]) -> Run | None:
    """Load the run where it is the one that was asked for."""
    if not (folder / RUN).exists():
        return None
    try:
        run = load_run(folder)
    except (CheckpointError, FileNotFoundError):
        return None
    return run if not _difference(identity, run.config, run.record) else None


def _difference(identity: dict[str, Any], config: dict[str, Any], record: dict[str, Any]) -> str:
    """Say in what a run differs from the one asked for; empty where it does not.

    A published run stands for the version that made it, so its training code may differ.
    """
    asked = identity["config"]
    differing = [
        f"{name} {config.get(name)!r} instead of {asked.get(name)!r}"
        for name in sorted(asked.keys() | config.keys())
        if config.get(name) != asked.get(name)
    ]
    if record.get("code") != identity["code"] and not record.get("published"):
        differing.append("other training code")
    return ", ".join(differing)


def _state_to_continue(folder: Path, identity: dict[str, Any], retrain: bool) -> State | None:
    """Return the state of an interrupted training of this very run; set aside all else."""
    reason = ""
    state = None
    try:
        if (folder / RUN).exists():
            run = load_run(folder)
            reason = _difference(identity, run.config, run.record) or "a new training was asked for"
        elif state := checkpoints.read_state(folder):
            if retrain:
                reason = "a new training was asked for"
            else:
                reason = _difference(identity, state.identity["config"], state.identity)
        elif (folder / checkpoints.WEIGHTS).exists():
            reason = f"its {RUN} is missing"
    except (CheckpointError, FileNotFoundError) as error:
        reason = str(error)
    if reason:
        _set_aside(folder, reason)
        return None
    return state


def _set_aside(folder: Path, reason: str) -> None:
    """Keep the folder as `<folder>.previous`; an unfinished run does not displace a finished."""
    aside = folder.with_name(f"{folder.name}.previous")
    if (aside / RUN).exists() and not (folder / RUN).exists():
        print(f"{folder} was unfinished and is dropped ({reason}); training anew", file=sys.stderr)
        shutil.rmtree(folder)
        return
    print(f"{folder} is kept as {aside.name} ({reason}); training anew", file=sys.stderr)
    if aside.exists():
        shutil.rmtree(aside)
    folder.replace(aside)


def main(arguments: list[str] | None = None) -> int:
    """Make one run from a terminal; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m vae_core.experiment", description="Train one run, or load it."
    )
    parser.add_argument("--model", required=True, help=" or ".join(MODELS))
    parser.add_argument("--params", default="p1", help=" or ".join(PARAMETER_SETS))
    parser.add_argument("--dataset", default="shapes", help="a name or a path")
    parser.add_argument("--limit", type=int, help="at most so many training pictures")
    parser.add_argument("--fraction", type=float, default=1.0, help="share of the training part")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-epochs", type=int, default=100)
    parser.add_argument("--monitor", default="train", help=" or ".join(MONITORS))
    parser.add_argument("--beta", type=float, default=1.0, help="weight of the KL term")
    parser.add_argument("--reduction", default="sum", help=" or ".join(loss.REDUCTIONS))
    parser.add_argument("--precision", default="auto", help=" or ".join(PRECISIONS))
    parser.add_argument("--device", help="cuda, mps or cpu")
    parser.add_argument("--checkpoints", type=Path, default=CHECKPOINTS)
    parser.add_argument("--retrain", action="store_true")
    chosen = vars(parser.parse_args(arguments))
    try:
        dataset = load_dataset(
            chosen.pop("dataset"), limit=chosen.pop("limit"), fraction=chosen.pop("fraction")
        )
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
        f"(reconstruction {test['reconstruction']:.2f}, KL {test['kl']:.2f}) nats per picture; "
        f"{run.summary['seconds_per_epoch']:.1f} s an epoch, {run.record['precision']}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
