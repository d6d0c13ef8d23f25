"""One call for a trained run: loaded where it exists, trained or continued where it does not."""

import dataclasses
import platform
import re
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from vae_core import __version__, evaluation
from vae_core.config import PARAMETER_SETS, Config, ParameterSet, parameter_set
from vae_core.data import Dataset
from vae_core.loss import LOSS_PARTS
from vae_core.models import MODELS, VAE
from vae_core.runs.checkpoints import (
    RUN,
    STATE,
    WEIGHTS,
    CheckpointError,
    Run,
    StoredState,
    load_run,
    move_to_backup,
    read_state,
    write_run,
    write_state,
)
from vae_core.runs.fingerprints import training_code
from vae_core.runs.hardware import choose_device, choose_precision, processor
from vae_core.storage import CHECKPOINTS, locked, print_error
from vae_core.training import History, TrainingState, best_epoch, train

AfterEpoch = Callable[[Config, History], None]


class Request(NamedTuple):
    """What a run is asked to be, and where it is kept."""

    config: Config
    dataset: dict[str, Any]  # name, folder, title, fingerprint and size of the data set
    code: dict[str, str]  # hashes by part, see `fingerprints.training_code`
    folder: Path

    @property
    def identity(self) -> dict[str, Any]:
        """What is written beside a resume state."""
        config = dataclasses.asdict(self.config)
        return {"config": config, "dataset": self.dataset, "code": self.code}


class FolderContent(NamedTuple):
    """What a run's folder holds: a finished run, an unfinished training, or neither.

    `differences` are in settings or data, `code_change` is in the code; "" means none. `problem`
    says why what is there cannot be used.
    """

    run: Run | None = None
    stored: StoredState | None = None
    differences: str = ""
    code_change: str = ""
    problem: str = ""

    @property
    def reason_to_replace(self) -> str:
        """Why the content is not what was requested; "" where it is, or there is nothing."""
        return self.problem or self.differences or self.code_change


def train_or_load(
    model: str,
    params: str | ParameterSet,
    dataset: Dataset,
    seed: int = 0,
    max_epochs: int = 100,
    *,
    checkpoints: Path | str = CHECKPOINTS,
    retrain: bool = False,
    device: str | None = None,
    after_epoch: AfterEpoch = lambda config, history: None,
    **options: Any,
) -> Run:
    """Return the run of this configuration, trained on this data by this code.

    A finished run of exactly this configuration, data and code is loaded, or else a published one
    of this configuration and data. An interrupted training continues after its last finished
    epoch. Anything else in the run's folder is kept as `<folder>.previous-<n>`, and a line on the
    error stream says why. If several processes ask for the same run, one of them trains it.

    Args:
        params: name of a parameter set, or a `ParameterSet`.
        checkpoints: the folder that holds the runs' folders.
        retrain: train again even where the run exists.
        device: "cuda", "mps" or "cpu"; None is the best available one.
        after_epoch: called with configuration and history after each epoch.
        options: other fields of `Config`.

    Raises:
        ValueError: a value is invalid; the message names it.
        TrainingDiverged: the loss became infinite or NaN.
        OSError: a file cannot be written; finished epochs are kept.
    """
    chosen_device = choose_device(device)
    request = make_request(
        model, params, dataset, seed, max_epochs, checkpoints=checkpoints, **options
    )
    # A state beside a finished run was left by a kill; only who holds the lock may remove it.
    if not retrain and not (request.folder / STATE).exists():
        run = find_finished(request)
        if run is not None:
            return run
    with locked(request.folder):
        return train_locked(request, dataset, chosen_device, retrain, after_epoch)


def finished_run(
    model: str,
    params: str | ParameterSet,
    dataset: Dataset,
    seed: int = 0,
    max_epochs: int = 100,
    **options: Any,
) -> Run | None:
    """Return the run that `train_or_load` would load with these arguments, or None."""
    return find_finished(make_request(model, params, dataset, seed, max_epochs, **options))


def run_folder(
    model: str,
    params: str | ParameterSet,
    dataset: Dataset,
    seed: int = 0,
    max_epochs: int = 100,
    **options: Any,
) -> Path:
    """Return the folder in which `train_or_load` keeps the run of these arguments."""
    return make_request(model, params, dataset, seed, max_epochs, **options).folder


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
    is damaged, and FileNotFoundError, which lists the published runs, where there is none.
    """
    folder = Path(checkpoints).expanduser() / "published" / dataset
    name = published_name(Config(model, parameter_set(params), seed, **options))
    if not (folder / name / RUN).exists():
        names = sorted(path.parent.name for path in folder.glob(f"*/{RUN}"))
        existing = ", ".join(names) or "no run at all"
        raise FileNotFoundError(f"{folder} has no run {name}; it has {existing}")
    return load_run(folder / name)


def run_name(config: Config) -> str:
    """Return the name of a run's folder.

    It is `<model>-<params>-seed<k>`, followed by every field that differs from its default; for
    example `conv-p2-seed0-max_epochs8-cosine`. A parameter set that is not one of the built-in
    ones adds its values. Raises ValueError where a name cannot be part of a folder's name.
    """
    params = config.params
    for label, text in (("parameter set", params.name), ("model", config.model)):
        if not re.fullmatch(r"[\w.-]+", str(text)):
            raise ValueError(f"the {label}'s name is {text!r}; use letters, digits, . _ -")
    name = f"{config.model}-{params.name}"
    if params != PARAMETER_SETS.get(params.name):
        name += f"-{params.batch_size}-{params.learning_rate}-{params.latent_dim}"
    name += f"-seed{config.seed}"
    for field in dataclasses.fields(Config)[3:]:
        value = getattr(config, field.name)
        if value == field.default:
            continue
        if value is True:
            name += f"-{field.name}"
        elif isinstance(value, str):
            name += f"-{value}"
        else:
            name += f"-{field.name}{value}"
    return name


def published_name(config: Config) -> str:
    """Return the name of a published run's folder: that of the run without its precision."""
    return run_name(dataclasses.replace(config, precision="auto"))


def make_request(
    model: str,
    params: str | ParameterSet,
    dataset: Dataset,
    seed: int = 0,
    max_epochs: int = 100,
    *,
    checkpoints: Path | str = CHECKPOINTS,
    **options: Any,
) -> Request:
    """Return what a run with these arguments of `train_or_load` is asked to be."""
    config = Config(model, parameter_set(params), seed, max_epochs, **options)
    names = ("name", "folder", "title", "fingerprint", "size")
    facts = {name: getattr(dataset, name) for name in names}
    folder = Path(checkpoints).expanduser() / dataset.folder / run_name(config)
    return Request(config, facts, training_code(MODELS[model]), folder)


def find_finished(request: Request) -> Run | None:
    """Return the requested run if it is finished, in its own folder or published.

    A run whose precision was chosen automatically also answers a request for the precision that
    was chosen.
    """
    if request.folder.exists():  # even an empty folder, which replaces a published run
        return usable_run(request.folder, request)
    automatic = request.folder.with_name(published_name(request.config))
    published = sorted(automatic.parents[1].glob(f"published/*/{automatic.name}"))
    for folder in [automatic, *published]:
        run = usable_run(folder, request)
        if run is not None:
            return run
    return None


def usable_run(folder: Path, request: Request) -> Run | None:
    """Load the finished run in a folder if it is the requested one.

    A published run is used although the code has changed since; a line on the error stream says so.
    """
    content = inspect_folder(folder, request)
    run = content.run
    if run is None or content.differences:
        return None
    if not content.code_change:
        return run
    if not run.provenance["published"]:
        return None
    version = run.provenance["published"]["version"]
    print_error(
        f"{folder} is shown as version {version} published it; since then {content.code_change}. "
        "retrain=True (make: RETRAIN=1) trains it with the present code"
    )
    return run


def inspect_folder(folder: Path, request: Request) -> FolderContent:
    """Read what a folder holds and compare it with the requested run."""
    try:
        if (folder / RUN).exists():
            run = load_run(folder)
            code = (run.provenance["published"] or run.provenance)["code"]
            config = dataclasses.asdict(run.config)
            fingerprint, precision = run.dataset["fingerprint"], run.provenance["precision"]
            content = FolderContent(run=run)
        elif (stored := read_state(folder)) is not None:
            identity = stored.identity
            code, config = identity["code"], identity["config"]
            fingerprint = identity["dataset"]["fingerprint"]
            precision = identity["machine"]["precision"]
            content = FolderContent(stored=stored)
        elif (folder / WEIGHTS).exists():
            return FolderContent(problem=f"its {RUN} is missing")
        else:
            return FolderContent()
    except (CheckpointError, FileNotFoundError) as error:
        return FolderContent(problem=str(error))
    except (KeyError, TypeError, AttributeError) as error:
        return FolderContent(problem=f"{folder} lacks {error} in its description")
    differences = config_differences(request.config, config, precision)
    if fingerprint != request.dataset["fingerprint"]:
        differences.append("other images in the data set")
    return content._replace(
        differences=", ".join(differences), code_change=code_differences(request.code, code)
    )


def config_differences(requested: Config, config: dict[str, Any], precision: str) -> list[str]:
    """Return a text for each field in which a run's configuration is not the requested one.

    `precision` is the one that the run was trained in; it counts instead of "auto".
    """
    differences = []
    for name, value in dataclasses.asdict(requested).items():
        present = config.get(name)
        if name == "precision" and value != "auto":
            present = precision
        if present != value:
            differences.append(f"{name} {present!r} instead of {value!r}")
    return differences


def code_differences(requested: dict[str, str], code: dict[str, str]) -> str:
    """Return which parts of the code have changed, as half a sentence; "" where none has."""
    parts = [part for part, value in requested.items() if code.get(part) != value]
    return f"the code of {' and '.join(parts)} has changed" if parts else ""


def train_locked(
    request: Request,
    dataset: Dataset,
    device: torch.device,
    retrain: bool,
    after_epoch: AfterEpoch,
) -> Run:
    """Continue or begin the training of a run whose folder is locked, and write the run.

    Anything else in the folder is moved to a backup first.
    """
    content = inspect_folder(request.folder, request)
    reason = content.reason_to_replace
    exists = content.run is not None or content.stored is not None
    if not reason and retrain and exists:
        reason = "a new training was requested"
    if content.run is not None and not reason:
        (request.folder / STATE).unlink(missing_ok=True)
        return content.run
    if content.stored is not None and not reason:
        resume_from = content.stored.state
        machine = continue_on(request.folder, content.stored.identity["machine"], device)
    else:
        resume_from, machine = None, begin_on(request, dataset, device)
    if reason:
        backup = move_to_backup(request.folder)
        print_error(f"{request.folder} is kept as {backup.name} ({reason}); training again")
    try:
        return train_and_write(request, dataset, device, machine, resume_from, after_epoch)
    except KeyboardInterrupt:
        report_interruption(request.folder)
        raise


def begin_on(request: Request, dataset: Dataset, device: torch.device) -> dict[str, Any]:
    """Return what a new training runs on: precision, device, threads."""
    image_shape = tuple(dataset.train.shape[1:])
    choice = choose_precision(request.config, image_shape, device)
    machine = {
        "precision": choice.precision,
        "device": device.type,
        "threads": [torch.get_num_threads()],
    }
    if choice.images_per_second:
        machine["images_per_second"] = choice.images_per_second
    return machine


def continue_on(folder: Path, machine: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Return what a continued training runs on; print a line where it is not as before."""
    threads, previous_threads = torch.get_num_threads(), machine["threads"][-1]
    previous_device = machine["device"]
    if (previous_threads, previous_device) == (threads, device.type):
        return machine
    print_error(
        f"{folder} goes on with {threads} threads on {device.type} instead of {previous_threads} "
        f"on {previous_device}: the last digits may differ from those of an uninterrupted training"
    )
    return machine | {"device": device.type, "threads": [*machine["threads"], threads]}


def train_and_write(
    request: Request,
    dataset: Dataset,
    device: torch.device,
    machine: dict[str, Any],
    resume_from: TrainingState | None,
    after_epoch: AfterEpoch,
) -> Run:
    """Train, write a state after each epoch and the run at the end; return the run."""
    config = request.config

    def save_epoch(state: TrainingState) -> None:
        write_state(request.folder, state, request.identity | {"machine": machine})
        after_epoch(config, state.history)

    if resume_from is not None:
        after_epoch(config, resume_from.history)
    model, history = train(
        config,
        dataset.train,
        dataset.validation,
        device,
        precision=machine["precision"],
        resume_from=resume_from,
        after_epoch=save_epoch,
    )
    provenance = {
        "code": request.code,
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
    summary = summarize(config, model, history, dataset)
    write_run(Run(model, history, config, request.dataset, summary, provenance, request.folder))
    return load_run(request.folder)


def summarize(config: Config, model: VAE, history: History, dataset: Dataset) -> dict[str, Any]:
    """Return the losses of the best epoch and of the test images, and the time it took."""
    best = best_epoch([row[f"{config.monitor}_loss"] for row in history])
    row, seconds = history[best - 1], [row["seconds"] for row in history]
    test = evaluation.evaluate(model, dataset.test, beta=config.beta, reduction=config.reduction)
    summary = {
        "epochs": len(history),
        "best_epoch": best,
        "train": {name: row[f"train_{name}"] for name in LOSS_PARTS},
        "validation": {name: row[f"validation_{name}"] for name in LOSS_PARTS},
        "test": test,
        "seconds_per_epoch": float(np.median(seconds)),
        "seconds": sum(seconds),
    }
    if model.decoder_variance is not None:
        summary["decoder_variance"] = model.decoder_variance.item()
    return summary


def report_interruption(folder: Path) -> None:
    """Print which epochs an interrupted training keeps, and how it continues."""
    stored = read_state(folder)
    if stored is None:
        kept = "no epoch is kept"
    else:
        kept = f"epoch {len(stored.state.history)} is kept in {folder}"
    print_error(f"stopped; {kept}; the same call goes on from there")
