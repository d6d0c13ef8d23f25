"""The whole study in one command: every run that it needs, and a table of what came out.

`python -m vae_core.study --dataset cifar10 --faces celeba --seeds "0 1 2"`, or `make study`, which
executes the notebooks afterwards. What is there already is not trained again, and what was
interrupted goes on.
"""

import argparse
import statistics
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vae_core.data import Dataset, DatasetMissing, load_dataset
from vae_core.experiment import finished_run, train_or_load
from vae_core.files import CHECKPOINTS, PROJECT
from vae_core.models import MODELS
from vae_core.parameter_sets import PARAMETER_SETS, parameter_set
from vae_core.results import PUBLISHED, Result, read_results, result, write_results
from vae_core.training import Config, TrainingDiverged, choose_device, train

# The losses out of balance of the notebook on posterior collapse.
UNBALANCED = ({"reduction": "mean"}, {"beta": 1e-4})


@dataclass(frozen=True)
class Task:
    """One run of the study: what `train_or_load` is called with."""

    model: str
    params: str
    dataset: Dataset
    seed: int
    options: dict[str, Any]

    def __str__(self) -> str:
        options = "".join(f", {name} {value}" for name, value in self.options.items())
        return (
            f"{MODELS[self.model].title} {self.params} on {self.dataset.title}, "
            f"seed {self.seed}{options}"
        )

    @property
    def arguments(self) -> dict[str, Any]:
        """All of them by name."""
        named = ("model", "params", "dataset", "seed")
        return {name: getattr(self, name) for name in named} | self.options


def tasks(
    pictures: Dataset, faces: Dataset | None, sets: list[str], seeds: list[int]
) -> list[Task]:
    """List the runs: both models with every set and seed, the CVAE on faces, and the collapse.

    The first seed comes first with everything, so that a study which is stopped early is whole.
    """
    listed = []
    balanced = [] if "p2" in sets else [{}]
    for seed in seeds:
        for params in sets:
            listed += [Task(model, params, pictures, seed, {}) for model in ("conv", "fc")]
        if faces is not None:
            listed.append(Task("conv", "p2", faces, seed, {}))
        if seed == seeds[0]:
            collapse = [*balanced, *UNBALANCED]
            listed += [Task("conv", "p2", pictures, seed, options) for options in collapse]
    return listed


def seconds_per_epoch(task: Task, precision: str, pictures: int = 4096) -> float:
    """Measure how long an epoch takes, from the second of two over so many training pictures."""
    data = task.dataset
    share = min(1, pictures / len(data.train))
    few = replace(
        data,
        train=data.train[: round(share * len(data.train))],
        validation=data.validation[: max(1, round(share * len(data.validation)))],
    )
    config = Config(task.model, parameter_set(task.params), max_epochs=2, precision=precision)
    _, history = train(config, few, choose_device())
    return history[-1]["seconds"] / share


def expected_epochs(task: Task, before: Iterable[Result]) -> float:
    """Guess when early stopping will come: as in former results, or as the study published it."""
    loss = (task.options.get("beta", 1), task.options.get("reduction", "sum"))
    alike = [
        row
        for row in before
        if (row["model"], row["params"]) == (task.model, task.params)
        and (row["beta"], row["reduction"]) == loss
    ]
    same = [row for row in alike if row["dataset"] == task.dataset.name] or alike
    if same:
        return statistics.fmean(row["epochs"] for row in same)
    return PUBLISHED.get((task.params, task.model), (30, 0))[0]


def estimate(
    waiting: list[Task], before: Iterable[Result], max_epochs: int, precision: str
) -> tuple[float, float]:
    """Return the seconds that tasks will probably take, and those they take at most."""
    before, speeds = list(before), {}
    probably = at_most = 0.0
    for task in waiting:
        kind = (task.model, task.params, task.dataset.name)
        if kind not in speeds:
            speeds[kind] = seconds_per_epoch(task, precision)
        probably += speeds[kind] * min(expected_epochs(task, before), max_epochs)
        at_most += speeds[kind] * max_epochs
    return probably, at_most


def main(arguments: list[str] | None = None) -> int:
    """Train what is missing, write the results; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m vae_core.study", description=__doc__)
    parser.add_argument("--dataset", default="cifar10", help="a name or a path")
    parser.add_argument("--fraction", type=float, default=1.0, help="share of its training part")
    parser.add_argument("--faces", default="celeba", help="a name or a path")
    parser.add_argument("--faces-fraction", type=float, default=0.3, help="likewise")
    parser.add_argument("--sets", default=" ".join(PARAMETER_SETS), help="parameter sets")
    parser.add_argument("--seeds", default="0 1 2")
    parser.add_argument("--max-epochs", type=int, default=100)
    parser.add_argument("--limit", type=int, help="at most so many training pictures")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--retrain", action="store_true", help="train anew what is there")
    parser.add_argument("--results", type=Path, default=PROJECT / "report" / "results.csv")
    parser.add_argument("--checkpoints", type=Path, default=CHECKPOINTS)
    chosen = parser.parse_args(arguments)
    try:
        return _study(chosen)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130


def _study(chosen: argparse.Namespace) -> int:
    try:
        seeds = list(dict.fromkeys(int(seed) for seed in chosen.seeds.split()))
    except ValueError:
        raise ValueError(f"seeds are {chosen.seeds!r}; give whole numbers, as in '0 1 2'") from None
    if not seeds or not chosen.sets.split():
        raise ValueError("there is nothing to train; give at least one seed and one parameter set")
    pictures = load_dataset(chosen.dataset, limit=chosen.limit, fraction=chosen.fraction)
    try:
        faces = load_dataset(chosen.faces, limit=chosen.limit, fraction=chosen.faces_fraction)
    except DatasetMissing as missing:
        print(f"without faces: {missing}", file=sys.stderr)
        faces = None

    common = {
        "max_epochs": chosen.max_epochs,
        "precision": chosen.precision,
        "checkpoints": chosen.checkpoints,
    }
    all_tasks = tasks(pictures, faces, chosen.sets.split(), seeds)
    waiting = [
        task
        for task in all_tasks
        if chosen.retrain or finished_run(**task.arguments, **common) is None
    ]
    print(f"{len(all_tasks)} runs, {len(all_tasks) - len(waiting)} of them finished", flush=True)
    if waiting:
        try:
            before = read_results(PROJECT / "figures" / "results.csv")
        except (ValueError, OSError) as error:
            print(f"estimated without former results: {error}", file=sys.stderr)
            before = []
        probably, at_most = estimate(waiting, before, chosen.max_epochs, chosen.precision)
        print(
            f"the others take about {_minutes(probably)} if they stop as the published ones, and "
            f"{_minutes(at_most)} at most ({chosen.max_epochs} epochs each)",
            flush=True,
        )

    results = []
    for number, task in enumerate(all_tasks, start=1):
        print(f"[{number}/{len(all_tasks)}] {task} …", flush=True)
        try:
            run = train_or_load(**task.arguments, **common, retrain=chosen.retrain)
        except TrainingDiverged as error:
            print(f"    {error}", file=sys.stderr)
            continue
        row = result(run, task.dataset.test)
        results.append(row)
        print(
            f"    {row['epochs']} epochs of {row['seconds_per_epoch']:.1f} s, training loss "
            f"{row['train_loss']:.2f}, test loss {row['test_loss']:.2f}",
            flush=True,
        )
    if results:
        write_results(chosen.results, results)
        print(f"the results are in {chosen.results}")
    return int(len(results) < len(all_tasks))


def _minutes(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


if __name__ == "__main__":
    sys.exit(main())
