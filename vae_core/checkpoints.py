"""A run's folder: what is written during and after a training, and how it is read back.

A finished run is `weights.safetensors`, `history.csv` and `run.json`; the last is written last
and holds the SHA-256 of the others, of itself and the folder's own name, so that a file that was
damaged, or that belongs to another run, is recognised. While the training goes on there is
`state.safetensors` instead, with everything that is needed to go on. Nothing here is pickled.
"""

import csv
import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as parse_safetensors
from safetensors.torch import save as to_safetensors
from torch import Tensor

from vae_core.files import write
from vae_core.models import VAE, build_model

FORMAT = 1
WEIGHTS, HISTORY, RUN, STATE = "weights.safetensors", "history.csv", "run.json", "state.safetensors"

History = list[dict[str, float]]
HISTORY_COLUMNS = (
    "epoch",
    *(
        f"{part}_{name}"
        for part in ("train", "validation")
        for name in ("loss", "reconstruction", "kl")
    ),
    "seconds",
)


class CheckpointError(ValueError):
    """A run's folder does not hold what it should; the message says what and what to do."""


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        model: with the weights of the best epoch, in evaluation mode, float32, on the CPU.
        history: a row an epoch with the names in `HISTORY_COLUMNS`; losses in nats per picture.
        config: what the run was asked to be: model, parameter set, seed, data ...
        summary: what came out: epochs, losses of the best epoch and on the test part, time.
        record: the rest of `run.json`: versions, device, precision, training code.
        folder: where it lies.
    """

    model: VAE
    history: History
    config: dict[str, Any]
    summary: dict[str, Any]
    record: dict[str, Any]
    folder: Path


@dataclass(frozen=True)
class State:
    """An unfinished training after its last finished epoch.

    Attributes:
        tensors: weights, optimizer and best weights by name.
        history: the rows so far.
        identity: what the run was asked to be; see `experiment`.
    """

    tensors: dict[str, Tensor]
    history: History
    identity: dict[str, Any]


def write_run(
    folder: Path,
    weights: dict[str, Tensor],
    history: History,
    config: dict[str, Any],
    summary: dict[str, Any],
    record: dict[str, Any],
) -> None:
    """Write a finished run and remove its resume state.

    Raises:
        OSError: a file cannot be written; the resume state is then still there.
    """
    files = {
        WEIGHTS: to_safetensors({name: value.contiguous() for name, value in weights.items()}),
        HISTORY: _history_to_csv(history).encode(),
    }
    body = {
        "format": FORMAT,
        "run": _run_name(folder),
        "config": config,
        "summary": summary,
        **record,
        "files": {name: _sha256(content) for name, content in files.items()},
    }
    for name, content in files.items():
        write(folder / name, content)
    write(folder / RUN, json.dumps({**body, "sha256": _digest_of(body)}, indent=2) + "\n")
    (folder / STATE).unlink(missing_ok=True)


def load_run(folder: Path | str) -> Run:
    """Read a finished run.

    Raises:
        FileNotFoundError: there is no finished run in this folder.
        CheckpointError: a file is damaged, of another run, of another model or latent size, or
            of another format version; the message names it.
    """
    folder = Path(folder)
    record = read_record(folder)
    contents = {name: _checked_bytes(folder / name, record) for name in (WEIGHTS, HISTORY)}
    config, summary = record["config"], record["summary"]
    try:
        model = build_model(config["model"], config["params"]["latent_dim"])
        model.load_state_dict(parse_safetensors(contents[WEIGHTS]))
    except (SafetensorError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{folder / WEIGHTS} does not hold the weights of the model that {RUN} describes; "
            "delete the folder and train the run again"
        ) from error
    history = _history_from_csv(contents[HISTORY], folder / HISTORY)
    of_the_files = ("format", "run", "config", "summary", "files", "sha256")
    rest = {name: value for name, value in record.items() if name not in of_the_files}
    return Run(model.eval(), history, config, summary, rest, folder)


def read_record(folder: Path) -> dict[str, Any]:
    """Read and check a run's `run.json` alone.

    Raises:
        FileNotFoundError: there is none.
        CheckpointError: it is damaged, of another run, or of another format version.
    """
    path = folder / RUN
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        there = (
            "its training is not finished"
            if (folder / STATE).exists()
            else "nothing was trained there"
        )
        raise FileNotFoundError(
            f"{folder} holds no finished run ({there}); ask for the run with train_or_load or "
            "python -m vae_core.experiment"
        ) from None
    try:
        record = json.loads(content)
        body = {name: value for name, value in record.items() if name != "sha256"}
        intact = record["sha256"] == _digest_of(body)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        intact = False
    if not intact:
        raise CheckpointError(f"{path} is damaged; delete the folder and train the run again")
    if record.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} has format {record.get('format')!r}, this version reads {FORMAT}; "
            "use the version that wrote it or train the run again"
        )
    if record["run"] != _run_name(folder):
        raise CheckpointError(
            f"{path} belongs to the run {record['run']!r}; a run's folder cannot be copied or "
            "renamed: put it back or train the run again"
        )
    return record


def write_state(folder: Path, state: State) -> None:
    """Write what is needed to go on after the epoch that just ended, and its history.

    Raises:
        OSError: a file cannot be written; the former state is then untouched.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.tensors.items()}
    body = {"format": FORMAT, "identity": state.identity, "history": state.history}
    text = json.dumps(body)
    metadata = {"state": text, "sha256": _digest_of_tensors(text, tensors)}
    write(folder / STATE, to_safetensors(tensors, metadata))
    write(folder / HISTORY, _history_to_csv(state.history))


def read_state(folder: Path) -> State | None:
    """Read what an unfinished training left, or return None where there is nothing.

    Raises:
        CheckpointError: the state is damaged or of another format version.
    """
    path = folder / STATE
    if not path.exists():
        return None
    # Any bytes may come here, and safetensors promises no particular exceptions for them.
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        intact = metadata["sha256"] == _digest_of_tensors(metadata["state"], tensors)
        body = json.loads(metadata["state"]) if intact else {}
    except Exception as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path} is damaged: {reason}") from error
    if body.get("format") != FORMAT:
        raise CheckpointError(f"{path} is damaged or of another format version than {FORMAT}")
    return State(tensors, body["history"], body["identity"])


def _run_name(folder: Path) -> str:
    folder = folder.resolve()
    return f"{folder.parent.name}/{folder.name}"


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _digest_of(body: dict[str, Any]) -> str:
    return _sha256(json.dumps(body, sort_keys=True).encode())


def _digest_of_tensors(text: str, tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        digest.update(value.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _checked_bytes(path: Path, record: dict[str, Any]) -> bytes:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        content = b""
    if _sha256(content) != record["files"].get(path.name):
        remedy = "delete the folder and train the run again"
        if record.get("published"):
            remedy = f"git checkout -- {path.parent} brings the published run back"
        raise CheckpointError(f"{path} is missing, damaged or of another run; {remedy}")
    return content


def _history_to_csv(history: History) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, HISTORY_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue()


def _history_from_csv(content: bytes, path: Path) -> History:
    try:
        return [
            {name: float(row[name]) for name in HISTORY_COLUMNS} | {"epoch": int(row["epoch"])}
            for row in csv.DictReader(io.StringIO(content.decode()))
        ]
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise CheckpointError(f"{path} is not a history: {error}") from error
