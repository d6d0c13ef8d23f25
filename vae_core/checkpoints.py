"""A run's folder: what is written during and after a training, and how it is read back.

A finished run is `weights.safetensors`, `history.csv` and `run.json`; the last is written last
and holds the checksum of the weights. While the training goes on there is `state.safetensors`
instead, with everything that is needed to go on. Nothing here is pickled.
"""

import csv
import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from vae_core.models import MODELS, VAE
from vae_core.parameter_sets import ParameterSet
from vae_core.storage import in_one_line, write
from vae_core.training import Config, History, State

FORMAT = 2
WEIGHTS, HISTORY, RUN, STATE = "weights.safetensors", "history.csv", "run.json", "state.safetensors"
PARTS = ("loss", "reconstruction", "kl")
LOSSES = [f"{part}_{name}" for part in ("train", "validation") for name in PARTS]
HISTORY_COLUMNS = ("epoch", *LOSSES, "seconds")


class CheckpointError(ValueError):
    """A run's folder does not hold what it should; the message says what and what to do."""


@dataclass(frozen=True)
class Run:
    """A finished run."""

    model: VAE  # with the weights of the best epoch, in evaluation mode, float32, on the CPU
    history: History  # a row an epoch, the names in `HISTORY_COLUMNS`; losses in nats per image
    config: Config  # what it was asked to be
    dataset: dict[str, Any]  # name, folder, title, fingerprint and size of what it has learned
    summary: dict[str, Any]  # what came out: epochs, losses of the best epoch and test part, time
    record: dict[str, Any]  # the rest of run.json: training code, versions, device, precision
    folder: Path  # where it lies


def write_run(run: Run, precision: torch.dtype = torch.float32) -> None:
    """Write the files of a finished run, weights in `precision`, and remove its resume state.

    Where a file cannot be written (OSError), the resume state is still there.
    """
    tensors = {name: t.to(precision).contiguous() for name, t in run.model.state_dict().items()}
    weights = safetensors.torch.save(tensors)
    write(run.folder / WEIGHTS, weights)
    _write_history(run.folder, run.history)
    about = {
        "format": FORMAT,
        "model": {name: getattr(run.model, name) for name in ("name", "latent_dim", "image_shape")},
        "config": dataclasses.asdict(run.config),
        "dataset": run.dataset,
        "summary": run.summary,
        **run.record,
        "weights": hashlib.sha256(weights).hexdigest(),
    }
    write(run.folder / RUN, json.dumps(about, indent=2) + "\n")
    (run.folder / STATE).unlink(missing_ok=True)


def load_run(folder: Path | str) -> Run:
    """Read a finished run; FileNotFoundError where there is none.

    A CheckpointError names a file that is damaged, of a model that is not registered, or of another
    format version.
    """
    folder = Path(folder)
    if not (folder / RUN).exists():
        there = "a training to go on with" if (folder / STATE).exists() else "nothing"
        raise FileNotFoundError(f"{folder} holds {there}, no finished run; train_or_load makes it")
    name, remedy = RUN, "set the folder aside and train the run again"
    try:
        about = json.loads((folder / RUN).read_bytes())
        if about["format"] != FORMAT:
            raise ValueError(f"format {about['format']!r}, this version reads {FORMAT}")
        if about["published"]:
            remedy = f"git checkout -- {folder} brings the published run back"
        built, checksum = about.pop("model"), about.pop("weights")
        if built["name"] not in MODELS:
            raise ValueError(f"model {built['name']!r} is unknown; register it in MODELS")
        config = about.pop("config")
        config = Config(**config | {"params": ParameterSet(**config["params"])})
        dataset, summary = about.pop("dataset"), about.pop("summary")
        name = HISTORY
        history = _read_history(folder / HISTORY)
        if len(history) != summary["epochs"]:
            raise ValueError(f"{len(history)} epochs instead of {summary['epochs']}")
        name = WEIGHTS
        weights = (folder / WEIGHTS).read_bytes()
        if hashlib.sha256(weights).hexdigest() != checksum:
            raise ValueError(f"its checksum is not the one in {RUN}")
        model = MODELS[built["name"]](built["latent_dim"], tuple(built["image_shape"]))
        model.load_state_dict(safetensors.torch.load(weights))
    except Exception as error:  # any bytes may come here
        message = f"{folder / name} cannot be loaded: {in_one_line(error)}; {remedy}"
        raise CheckpointError(message) from error
    return Run(model.eval(), history, config, dataset, summary, about, folder)


def _read_history(path: Path) -> History:
    # Spreadsheets write a byte order mark, semicolons and other line ends.
    text = path.read_text(encoding="utf-8-sig")
    rows = csv.DictReader(text.splitlines(), delimiter=";" if ";" in text else ",")
    history = [{name: float(row[name]) for name in HISTORY_COLUMNS} for row in rows]
    return [row | {"epoch": int(row["epoch"])} for row in history]


def write_state(folder: Path, state: State, identity: dict[str, Any]) -> None:
    """Write what is needed to go on after the epoch that just ended, and its history.

    `identity` says what the run was asked to be and what has trained it so far. Where a file cannot
    be written (OSError), the former state is untouched.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.tensors.items()}
    text = json.dumps({"format": FORMAT, "identity": identity, "history": state.history})
    metadata = {"state": text, "sha256": _digest(text, tensors)}
    write(folder / STATE, safetensors.torch.save(tensors, metadata))
    _write_history(folder, state.history)


def read_state(folder: Path) -> tuple[State, dict[str, Any]] | None:
    """Read what an unfinished training left, and its identity; None where there is nothing.

    A CheckpointError says that it is damaged or of another format version.
    """
    path = folder / STATE
    if not path.exists():
        return None
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        if metadata["sha256"] != _digest(metadata["state"], tensors):
            raise ValueError("its checksum is not its own")
        body = json.loads(metadata["state"])
        if body["format"] != FORMAT:
            raise ValueError(f"format {body['format']!r}, this version reads {FORMAT}")
        return State(tensors, body["history"]), body["identity"]
    except Exception as error:  # safetensors promises no particular ones for damaged bytes
        raise CheckpointError(f"{path} is damaged: {in_one_line(error)}") from error


def _write_history(folder: Path, history: History) -> None:
    rows = [HISTORY_COLUMNS, *([row[name] for name in HISTORY_COLUMNS] for row in history)]
    write(folder / HISTORY, "".join(",".join(map(str, row)) + "\n" for row in rows))


def _digest(text: str, tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        digest.update(value.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
