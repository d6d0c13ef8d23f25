"""`python -m vae_core.runs`: train one run, or load it."""

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

from vae_core.config import LEARNED, PARAMETER_SETS, Config
from vae_core.data import load_dataset
from vae_core.runs.checkpoints import Run
from vae_core.runs.training_run import train_or_load
from vae_core.storage import CHECKPOINTS, print_error
from vae_core.training import TrainingDiverged

DATA_OPTIONS = ("limit", "fraction", "size")


class ArgumentParser(argparse.ArgumentParser):
    """A parser that raises ValueError instead of printing its usage and exiting."""

    def error(self, message):
        """Raise the error as a ValueError."""
        raise ValueError(f"{message} ({self.prog} --help lists the options)")


def make_parser() -> ArgumentParser:
    """Return the parser: options for the data, the folders, and every field of `Config`."""
    description = "Train one run, or load it."
    parser = ArgumentParser(prog="python -m vae_core.runs", description=description)
    parser.add_argument("--dataset", default="shapes", help="name or path of a data set")
    parser.add_argument("--limit", type=int, help="maximum number of training images")
    parser.add_argument("--fraction", type=float, default=1.0, help="share of the training part")
    parser.add_argument("--size", type=int, default=32, help="height and width of the images")
    parser.add_argument("--params", default="p1", help=" or ".join(PARAMETER_SETS))
    parser.add_argument("--device", help="cuda, mps or cpu")
    parser.add_argument("--checkpoints", type=Path, default=CHECKPOINTS, help="folder of the runs")
    parser.add_argument("--retrain", action="store_true", help="train again what exists")
    for field in dataclasses.fields(Config):
        if field.name != "params":
            add_field(parser, field)
    return parser


def add_field(parser: ArgumentParser, field: dataclasses.Field) -> None:
    """Add an option for a field of `Config`."""
    option = f"--{field.name.replace('_', '-')}"
    if field.type is bool:
        parser.add_argument(option, action="store_true")
        return
    parse = parse_variance if field.name == "decoder_variance" else field.type
    required = field.default is dataclasses.MISSING
    default = None if required else field.default
    parser.add_argument(option, type=parse, required=required, default=default)


def parse_variance(text: str) -> float | str:
    """Return "learned", or the number that a text is."""
    return text if text == LEARNED else float(text)


def describe(run: Run) -> str:
    """Return one line about a finished run."""
    summary = run.summary
    test = summary["test"]
    return (
        f"{run.folder}: {summary['epochs']} epochs, best {summary['best_epoch']}; "
        f"training loss {summary['train']['loss']:.2f}, test loss {test['loss']:.2f} "
        f"(reconstruction {test['reconstruction']:.2f}, KL {test['kl']:.2f}) nats per image; "
        f"{summary['seconds_per_epoch']:.1f} s an epoch, {run.provenance['precision']}"
    )


def main(arguments: list[str] | None = None) -> int:
    """Make one run from the command line; return the exit code."""
    try:
        options: dict[str, Any] = vars(make_parser().parse_args(arguments))
        data_options = {name: options.pop(name) for name in DATA_OPTIONS}
        dataset = load_dataset(options.pop("dataset"), **data_options)
        run = train_or_load(dataset=dataset, **options)
    except (ValueError, OSError, TrainingDiverged) as error:
        print_error(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    print(describe(run))
    return 0


if __name__ == "__main__":
    sys.exit(main())
