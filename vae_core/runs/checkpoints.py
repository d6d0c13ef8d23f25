"""A run's folder: what is written during and after a training, and how it is read back.

A finished run is `weights.safetensors`, `history.csv` and `run.json`; `run.json` is written last
and holds the checksum of the weights. During the training there is `state.pt` instead, with
everything that continues it. Reading never executes code that a file contains.
"""

import dataclasses
import errno
import hashlib
import io
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pandas as pd
import safetensors.torch
import torch

from vae_core.config import Config, ParameterSet
from vae_core.loss import LOSS_PARTS
from vae_core.models import MODELS, VAE
from vae_core.storage import atomic_write, single_line
from vae_core.training import History, TrainingState, build_model

FORMAT = 2  # of run.json and the files beside it
WEIGHTS, HISTORY, RUN, STATE = "weights.safetensors", "history.csv", "run.json", "state.pt"
LOSS_COLUMNS = [f"{part}_{name}" for part in ("train", "validation") for name in LOSS_PARTS]
HISTORY_COLUMNS = ["epoch", *LOSS_COLUMNS, "seconds"]
DIGEST_LENGTH = 64  # hexadecimal digits of a SHA-256 checksum


class CheckpointError(ValueError):
    """A run's folder does not hold what it should; the message says what is wrong, what to do."""


@dataclass(frozen=True)
class Run:
    """A finished run."""

    model: VAE  # with the weights of the best epoch, in evaluation mode, float32, on the CPU
    history: History  # a row an epoch, the names in `HISTORY_COLUMNS`; losses in nats per image
    config: Config  # what it was asked to be
    dataset: dict[str, Any]  # name, folder, title, fingerprint and size of its data set
    summary: dict[str, Any]  # epochs, losses of the best epoch and of the test images, seconds
    provenance: dict[str, Any]  # code, versions, device, precision, processor, date, published
    folder: Path  # where its files are


class StoredState(NamedTuple):
    """The state of an unfinished training, and what it was asked to be."""

    state: TrainingState
    identity: dict[str, Any]  # configuration, data set, code, and the machine so far


def write_run(run: Run, dtype: torch.dtype = torch.float32) -> None:
    """Write the files of a finished run, its weights in `dtype`, and remove its resume state.

    Where a file cannot be written (OSError), the resume state is kept.
    """
    tensors = {}
    for name, tensor in run.model.state_dict().items():
        if tensor.dim() > 0:  # single numbers, such as the decoder's variance, stay exact
            tensor = tensor.to(dtype)
        # A copy of each tensor, since the file format does not take weights that share memory.
        tensors[name] = tensor.contiguous().clone()
    weights = safetensors.torch.save(tensors)
    atomic_write(run.folder / WEIGHTS, weights)
    write_history(run.folder, run.history)
    content = {
        "format": FORMAT,
        "model": {
            "name": run.config.model,
            "latent_dim": run.model.latent_dim,
            "image_shape": run.model.image_shape,
        },
        "config": dataclasses.asdict(run.config),
        "dataset": run.dataset,
        "summary": run.summary,
        **run.provenance,
        "weights": hashlib.sha256(weights).hexdigest(),
    }
    content["checksum"] = content_checksum(content)
    atomic_write(run.folder / RUN, json.dumps(content, indent=2) + "\n")
    (run.folder / STATE).unlink(missing_ok=True)


def load_run(folder: Path | str) -> Run:
    """Read a finished run.

    Raises FileNotFoundError where there is none, and CheckpointError, which names the file, where
    one is damaged, of a model that is not in `MODELS`, or of another format version.
    """
    folder = Path(folder)
    if not (folder / RUN).exists():
        content = "an unfinished training" if (folder / STATE).exists() else "nothing"
        raise FileNotFoundError(
            f"{folder} holds {content}, no finished run; train_or_load makes it"
        )
    file, remedy = folder / RUN, "move the folder away and train the run again"
    try:
        content = read_run_file(file)
        if content["published"]:
            remedy = f"git checkout -- {folder} restores the published run"
        config = read_config(content.pop("config"))
        dataset, summary = content.pop("dataset"), content.pop("summary")
        image_shape = tuple(content.pop("model")["image_shape"])
        checksum = content.pop("weights")
        file = folder / HISTORY
        history = read_history(file)
        if len(history) != summary["epochs"]:
            raise ValueError(f"{len(history)} epochs instead of {summary['epochs']}")
        file = folder / WEIGHTS
        model = read_model(file, checksum, config, image_shape)
    except Exception as error:  # damaged files make the libraries raise errors of many kinds
        reason = single_line(error)
        raise CheckpointError(f"{file} cannot be loaded: {reason}; {remedy}") from error
    return Run(model, history, config, dataset, summary, content, folder)


def read_run_file(path: Path) -> dict[str, Any]:
    """Return the content of run.json without its checksum.

    Raises ValueError for another format, an unknown model, a number that is not finite, or content
    that was changed. Files of versions before the checksum have none.
    """
    content = json.loads(path.read_bytes(), parse_constant=refuse_constant)
    checksum = content.pop("checksum", None)
    if checksum is not None and checksum != content_checksum(content):
        raise ValueError("its content is not the one that was written")
    if content["format"] != FORMAT:
        raise ValueError(f"format {content['format']!r}, this version reads {FORMAT}")
    name = content["model"]["name"]
    if name not in MODELS:
        raise ValueError(f"model {name!r} is unknown; add it to MODELS")
    return content


def content_checksum(content: dict[str, Any]) -> str:
    """Return a SHA-256 over the content of run.json, whatever its layout."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def refuse_constant(text: str) -> None:
    """Raise ValueError for NaN and infinity, which Python reads although JSON has none."""
    raise ValueError(f"it has the number {text}")


def read_config(content: dict[str, Any]) -> Config:
    """Return the configuration that `dataclasses.asdict` turned into `content`."""
    params = ParameterSet(**content["params"])
    return Config(**content | {"params": params})


def read_model(path: Path, checksum: str, config: Config, image_shape: tuple[int, int, int]) -> VAE:
    """Build the model of a configuration and load its weights, whose SHA-256 is `checksum`."""
    weights = path.read_bytes()
    if hashlib.sha256(weights).hexdigest() != checksum:
        raise ValueError(f"its checksum is not the one in {RUN}")
    model = build_model(config, image_shape)
    model.load_state_dict(safetensors.torch.load(weights))
    return model.eval()


def write_history(folder: Path, history: History) -> None:
    """Write the history as CSV, a row an epoch."""
    table = pd.DataFrame(history, columns=HISTORY_COLUMNS)
    atomic_write(folder / HISTORY, table.to_csv(index=False, lineterminator="\n"))


def read_history(path: Path) -> History:
    """Read a history, also one that a spreadsheet saved with semicolons or other line ends."""
    text = path.read_text(encoding="utf-8-sig")
    separator = ";" if ";" in text else ","
    table = pd.read_csv(io.StringIO(text), sep=separator, float_precision="round_trip")
    missing = [name for name in HISTORY_COLUMNS if name not in table]
    if missing:
        raise ValueError(f"the column {missing[0]} is missing")
    table = table[HISTORY_COLUMNS].astype(float)
    if table.isna().any(axis=None):
        raise ValueError("a row is incomplete")
    table = table.astype({"epoch": int})
    return table.to_dict("records")


def write_state(folder: Path, state: TrainingState, identity: dict[str, Any]) -> None:
    """Write what continues the training after the epoch that just ended, and the history so far.

    `identity` says what the run was asked to be and what it was trained on. Where a file cannot be
    written (OSError), the previous state is untouched.
    """
    buffer = io.BytesIO()
    content = {"format": FORMAT, "identity": json.dumps(identity), "state": state._asdict()}
    torch.save(content, buffer)
    payload = buffer.getvalue()
    checksum = hashlib.sha256(payload).hexdigest()
    atomic_write(folder / STATE, checksum.encode() + payload)
    write_history(folder, state.history)


def read_state(folder: Path) -> StoredState | None:
    """Read the state of an unfinished training; None where there is none.

    Raises CheckpointError where it is damaged or of another format version.
    """
    path = folder / STATE
    if not path.exists():
        return None
    try:
        content = path.read_bytes()
        checksum, payload = content[:DIGEST_LENGTH], content[DIGEST_LENGTH:]
        if hashlib.sha256(payload).hexdigest().encode() != checksum:
            raise ValueError("its checksum does not fit its content")
        stored = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
        if stored["format"] != FORMAT:
            raise ValueError(f"format {stored['format']!r}, this version reads {FORMAT}")
        return StoredState(TrainingState(**stored["state"]), json.loads(stored["identity"]))
    except Exception as error:  # damaged files make the libraries raise errors of many kinds
        raise CheckpointError(f"{path} is damaged: {single_line(error)}") from error


def free_backup_path(path: Path, suffix: str = "") -> Path:
    """Return `<name without suffix>.previous-<n><suffix>`, n the first free number."""
    name, number = path.name.removesuffix(suffix), 1
    while (backup := path.with_name(f"{name}.previous-{number}{suffix}")).exists():
        number += 1
    return backup


def move_to_backup(folder: Path) -> Path:
    """Rename a folder to `<folder>.previous-<n>`, n the first free number, and return that."""
    backup = free_backup_path(folder)
    try:
        return folder.rename(backup)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    # A folder in the lower layer of an overlay file system, as in a container's image, cannot be
    # renamed, so it is copied first.
    with TemporaryDirectory(prefix=".backup-", dir=folder.parent) as scratch:
        copy = Path(shutil.copytree(folder, Path(scratch, "copy")))
        copy.rename(backup)
    shutil.rmtree(folder)
    return backup
