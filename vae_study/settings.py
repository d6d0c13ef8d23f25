"""The settings of `make`: one parser and one default for each."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, get_args

import torch
from dask.system import CPU_COUNT

from vae_core.config import CHOICES, parameter_set
from vae_core.data import NAMES
from vae_core.storage import CHECKPOINTS, PROJECT, single_line

YES_OR_NO = {"1": True, "yes": True, "true": True, "0": False, "no": False, "false": False}
# The precision of every run that `make study` and `make answer` compare, whatever the machine: a
# table must not mix precisions. It is bfloat16 because the published runs are.
COMPARED_PRECISION = "bfloat16"


def parse_text(text: str) -> str:
    """Return the text as it is; raise ValueError where it is blank."""
    if not text.strip():
        raise ValueError("give a value, or leave the setting out")
    return text


def parse_path(text: str) -> Path:
    """Return an absolute path, since notebooks are executed in another folder."""
    return Path(os.path.abspath(os.path.expanduser(parse_text(text))))


def parse_dataset(text: str) -> str:
    """Return the name of a data set as it is, and anything else as an absolute path."""
    return text if text in NAMES else str(parse_path(text))


def parse_int(text: str, at_least: int = 0) -> int:
    """Return a whole number of at most 18 digits; raise ValueError for anything else."""
    digits = re.fullmatch("[0-9]{1,18}", text.strip())
    if digits is None or int(text) < at_least:
        raise ValueError(f"give a whole number of at least {at_least}")
    return int(text)


def parse_count(text: str) -> int:
    """Return a whole number of at least 1."""
    return parse_int(text, at_least=1)


def parse_list(text: str, parse: Callable[[str], Any]) -> tuple:
    """Parse each word of a list, separated by spaces or commas; drop the repeated ones."""
    words = re.split(r"[\s,]+", parse_text(text).strip(", \t\n"))
    return tuple(dict.fromkeys(parse(word) for word in words))


def parse_seeds(text: str) -> tuple[int, ...]:
    """Return a list of seeds.

    >>> parse_seeds("4, 1 4")
    (4, 1)
    """
    return parse_list(text, parse_int)


def parse_sets(text: str) -> tuple[str, ...]:
    """Return a list of names of parameter sets."""
    return parse_list(text, lambda word: parameter_set(word).name)


def parse_yes_or_no(text: str) -> bool:
    """Return whether a text means yes; a blank text means no."""
    word = text.strip().lower()
    if word and word not in YES_OR_NO:
        raise ValueError(f"choose one of {', '.join(YES_OR_NO)}")
    return YES_OR_NO.get(word, False)


def parse_precision(text: str) -> str:
    """Return the name of a precision."""
    word = text.strip().lower()
    if word not in CHOICES["precision"]:
        raise ValueError(f"choose one of {', '.join(CHOICES['precision'])}")
    return word


@dataclass(frozen=True)
class Settings:
    """The settings of one call of `make`; `from_environment` reads and checks them.

    Beside the type of each field is the parser of its text.
    """

    # of the comparison, and of the page about faces: a data set's name, or an absolute path
    dataset: Annotated[str, parse_dataset] = "shapes"
    faces: Annotated[str, parse_dataset] = "faces"
    sets: Annotated[tuple[str, ...], parse_sets] = ("p1", "p2", "p3")  # names of parameter sets
    seed: Annotated[int, parse_int] = 0  # of all random numbers in the trainings
    seeds: Annotated[tuple[int, ...], parse_seeds] = (0,)  # those that 02 and `make study` compare
    max_epochs: Annotated[int | None, parse_count] = None  # of a training; None: as suits the data
    limit: Annotated[int | None, parse_count] = None  # maximum number of training images
    size: Annotated[int, parse_count] = 32  # height and width of the images
    precision: Annotated[str, parse_precision] = "auto"
    retrain: Annotated[bool, parse_yes_or_no] = False  # train again what exists
    report: Annotated[Path, parse_path] = PROJECT / "report"  # the folder of the pages
    results: Annotated[Path | None, parse_path] = None  # the table that `make publish` takes
    checkpoints: Annotated[Path, parse_path] = CHECKPOINTS  # the folder of all runs
    # trainings and notebooks at the same time; None: one for each core
    workers: Annotated[int | None, parse_count] = None
    # address of a Dask scheduler; None: workers on this machine
    scheduler: Annotated[str | None, parse_text] = None
    grid: Annotated[str, parse_text] = ""  # what `make sweep` varies
    yes: Annotated[bool, parse_yes_or_no] = False  # start a sweep however many runs it has

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str] = os.environ, **defaults: Any
    ) -> "Settings":
        """Read each setting from `VAE_<NAME>`; `defaults` replace those of the fields.

        `SEED=3` alone also means the seeds (3,), and without it the first of `SEEDS` is the seed.
        Raises ValueError with one line that names the invalid setting.
        """
        given = {}
        for entry in fields(cls):
            text = environment.get(f"VAE_{entry.name.upper()}")
            if text is not None:
                given[entry.name] = _parse(entry, text)
        values = defaults | given
        if "seed" in given and "seeds" not in given:
            values["seeds"] = (given["seed"],)
        elif "seeds" in values and "seed" not in given:
            values["seed"] = values["seeds"][0]
        return cls(**values)

    @property
    def training_workers(self) -> int:
        """How many trainings run at the same time: `workers`, or one a core.

        Where there is a GPU the default is one: each worker has a context and the images on the GPU
        of its own, and how several share it was not measured.
        """
        if self.workers is not None:
            return self.workers
        return 1 if torch.cuda.is_available() else CPU_COUNT

    @property
    def trains_all_pages(self) -> bool:
        """Whether every page shows runs with these settings.

        Without any of these settings, the pages of the faces, of the posterior collapse and of the
        explorer show published runs, which have converged, and need no training.
        """
        usual = Settings()
        names = ("dataset", "faces", "seed", "max_epochs", "limit", "size", "retrain")
        return any(getattr(self, name) != getattr(usual, name) for name in names)


def _parse(entry: Field, text: str) -> Any:
    """Parse the text of a setting; name the setting in the error."""
    name = entry.name.upper()
    _, parse = get_args(entry.type)
    try:
        text.encode()  # names of files need not be UTF-8, but pages and run.json are
    except UnicodeError:
        raise ValueError(f"{name} is {text!r}: it is not UTF-8") from None
    try:
        return parse(text)
    except ValueError as error:
        raise ValueError(f"{name} is {text!r}: {single_line(error)}") from None


# Those of `make study`, `make answer` and `make publish`.
STUDY_DEFAULTS = {
    "dataset": "cifar10",
    "faces": "celeba",
    "seeds": (0, 1, 2),
    "precision": COMPARED_PRECISION,
}
