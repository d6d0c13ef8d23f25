"""Runs as rows of a table: written, read and checked as a pandas data frame."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from vae_core.config import Config
from vae_core.data import Dataset
from vae_core.evaluation import active_dimensions, class_accuracy, oscillation, unevenness
from vae_core.latent import posterior_means, prior_samples
from vae_core.loss import LOSS_PARTS
from vae_core.models import MODELS
from vae_core.runs.checkpoints import Run
from vae_core.storage import atomic_write, single_line

DATA_PARTS = ("train", "validation", "test")
# How a model is trained, besides its parameter set; see `Config`.
RECIPE_COLUMNS = [
    *("decoder_variance", "flip", "weight_decay", "dropout", "kl_warmup", "rate_warmup"),
]
# What tells one run from another; two runs may also differ in their precision alone.
IDENTITY_COLUMNS = [
    *("dataset", "model", "params", "seed", "beta", "reduction", "schedule", *RECIPE_COLUMNS),
    *("batch_size", "learning_rate", "latent_dim", "max_epochs"),
]
COLUMNS = [
    *("dataset", "title", "model", "params", "batch_size", "learning_rate", "latent_dim", "seed"),
    *("beta", "reduction", "schedule", *RECIPE_COLUMNS, "max_epochs", "epochs", "best_epoch"),
    *(f"{part}_{name}" for part in DATA_PARTS for name in LOSS_PARTS),
    *("learned_variance", "test_bits_per_dim"),
    *("oscillation", "active_dimensions", "unevenness", "class_accuracy"),
    *("seconds_per_epoch", "seconds"),
    *("precision", "device", "threads", "processor"),
    *("rounding", "bound", "vae_core", "torch", "numpy"),
]
TEXT_COLUMNS = {
    *("dataset", "title", "model", "params", "reduction", "schedule", "precision", "device"),
    *("threads", "processor", "vae_core", "torch", "numpy", "decoder_variance", "flip"),
}
INTEGER_COLUMNS = ["batch_size", "latent_dim", "seed", "max_epochs", "epochs", "best_epoch"]
INTERPOLATIONS = 50  # pairs of prior samples over which unevenness is averaged


def result_row(run: Run, dataset: Dataset | None = None) -> dict[str, Any]:
    """Return a run as one flat row with the names in `COLUMNS`.

    Losses are those of the run's own objective, in nats per image; training and validation losses
    are of the best epoch. With the data set there are also the active latents over its test images
    and, where the classes are known, `class_accuracy`, that of a linear probe on mu. `unevenness`
    is a mean over straight interpolations. Where the decoder's variance is learned,
    `learned_variance` is its value and `test_bits_per_dim` the test loss in bits per value of an
    image. For a published run, `rounding` is the change of its
    test loss by rounding its weights, and `bound` the importance-weighted bound.
    """
    summary = run.summary
    starts = prior_samples(run.model, INTERPOLATIONS, seed=1)
    ends = prior_samples(run.model, INTERPOLATIONS, seed=2)
    row = config_columns(run) | provenance_columns(run)
    row |= {
        "epochs": summary["epochs"],
        "best_epoch": summary["best_epoch"],
        "learned_variance": summary.get("decoder_variance"),
        "test_bits_per_dim": summary["test"].get("bits_per_dim"),
        "oscillation": round(oscillation(run.history), 4),
        "active_dimensions": None,
        "unevenness": round(unevenness(run.model, starts, ends).mean().item(), 3),
        "class_accuracy": None,
        "seconds_per_epoch": round(summary["seconds_per_epoch"], 2),
        "seconds": round(summary["seconds"], 1),
    }
    for part in DATA_PARTS:
        for name in LOSS_PARTS:
            row[f"{part}_{name}"] = round(summary[part][name], 4)
    if dataset is not None:
        row["active_dimensions"] = active_dimensions(run.model, dataset.test)
        row["class_accuracy"] = mu_class_accuracy(run, dataset)
    return {name: row[name] for name in COLUMNS}


def config_columns(run: Run) -> dict[str, Any]:
    """Return the columns that say what a run was asked to be."""
    config, params = run.config, run.config.params
    return {
        "dataset": run.dataset["folder"],
        "title": run.dataset["title"],
        "model": config.model,
        "params": params.name,
        "batch_size": params.batch_size,
        "learning_rate": params.learning_rate,
        "latent_dim": params.latent_dim,
        "seed": config.seed,
        "beta": config.beta,
        "reduction": config.reduction,
        "schedule": config.schedule,
        "decoder_variance": str(config.decoder_variance),
        "flip": str(config.flip),
        "weight_decay": config.weight_decay,
        "dropout": config.dropout,
        "kl_warmup": config.kl_warmup,
        "rate_warmup": config.rate_warmup,
        "max_epochs": config.max_epochs,
    }


def provenance_columns(run: Run) -> dict[str, Any]:
    """Return the columns that say how a run was trained and published."""
    provenance = run.provenance
    published = provenance["published"] or {}
    return {
        "precision": provenance["precision"],
        "device": provenance["device"],
        "threads": "+".join(map(str, provenance["threads"])),
        "processor": provenance["processor"],
        "rounding": published.get("rounding"),
        "bound": published.get("bound"),
        "vae_core": provenance["versions"]["vae_core"],
        "torch": provenance["versions"]["torch"],
        "numpy": provenance["versions"]["numpy"],
    }


def mu_class_accuracy(run: Run, dataset: Dataset) -> float | None:
    """Return the accuracy of a linear probe on mu; None where the classes are unknown."""
    if dataset.labels is None:
        return None
    train_labels, _, test_labels = dataset.labels
    features = partial(posterior_means, run.model)
    return class_accuracy(features, dataset.train, train_labels, dataset.test, test_labels)


def write_results(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write rows of `result_row` as CSV; raise OSError where that fails."""
    table = pd.DataFrame(list(rows), columns=COLUMNS).astype({"active_dimensions": "Int64"})
    atomic_write(path, table.to_csv(index=False, lineterminator="\n"))


def read_results(path: Path) -> pd.DataFrame:
    """Read a table that `write_results` wrote.

    Raises FileNotFoundError where there is none, and ValueError for any other table.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; make study or answer writes such a table")
    types = {name: str if name in TEXT_COLUMNS else float for name in COLUMNS}
    try:
        table = pd.read_csv(path, dtype=types, float_precision="round_trip")
        check_results(table)
        return table.astype(dict.fromkeys(INTEGER_COLUMNS, int))
    except (ValueError, OSError) as error:
        raise ValueError(
            f"{path}: {single_line(error)}; take the table that make study wrote, "
            "or restore the published one with git checkout"
        ) from error


def check_results(table: pd.DataFrame) -> None:
    """Raise ValueError where a table is not one of results."""
    missing = [name for name in COLUMNS if name not in table]
    if missing:
        raise ValueError(f"the column {missing[0]} is missing")
    if table.empty:
        raise ValueError("there are no results")
    if table[IDENTITY_COLUMNS].isna().any(axis=None):
        raise ValueError("a row does not say which run it is")
    if table.duplicated([*IDENTITY_COLUMNS, "precision"]).any():
        raise ValueError("the same run is listed twice")
    unknown = sorted(set(table["model"]) - set(MODELS))
    if unknown:
        raise ValueError(f"unknown model {unknown[0]!r}")


def rows_of_run(table: pd.DataFrame, config: Config, folder: str) -> pd.Series:
    """Return for each row whether it is of this run; `folder` is that of its data set's runs.

    A configuration with the precision "auto" fits rows of any precision.
    """
    values = {**vars(config), **vars(config.params)}
    values |= {"params": config.params.name, "dataset": folder}
    values |= {"decoder_variance": str(config.decoder_variance), "flip": str(config.flip)}
    names = list(IDENTITY_COLUMNS)
    if config.precision != "auto":
        names.append("precision")
    return (table[names] == [values[name] for name in names]).all(axis=1)
