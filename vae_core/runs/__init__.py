"""Runs: trained or loaded by their configuration, kept in folders, gathered in tables."""

from vae_core.runs.checkpoints import CheckpointError, Run, load_run
from vae_core.runs.training_run import (
    finished_run,
    published_run,
    run_folder,
    run_name,
    train_or_load,
)

__all__ = [
    "CheckpointError",
    "Run",
    "finished_run",
    "load_run",
    "published_run",
    "run_folder",
    "run_name",
    "train_or_load",
]
