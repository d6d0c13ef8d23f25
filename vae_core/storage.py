"""Files that are written whole or not at all, locks between processes, messages, and checks."""

import errno
import os
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from numbers import Integral, Real
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout
from tqdm import tqdm

# In a clone the folders lie beside the package. Installed as a wheel, the package has no project
# around it, and data and checkpoints go to the user's current folder.
_PARENT = Path(__file__).resolve().parents[1]
PROJECT = _PARENT if (_PARENT / "pyproject.toml").exists() else Path.cwd()
DATA = PROJECT / "data"
CHECKPOINTS = PROJECT / "checkpoints"
MAX_INT = 2**63 - 1  # the largest integer of torch and numpy
SHORT_WAIT = 1  # seconds for which a process waits for a lock without printing it
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # errors of file systems without locks


@contextmanager
def atomic_open(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that appears at `path` only if the block ends without an error.

    Until then the bytes go to `.<name>.part` in the same folder. Missing folders are created. Two
    processes must not write the same path at the same time; see `locked`. Raises OSError, which
    names the path, where it cannot be written.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        reason = error.strerror or error
        message = f"{path} could not be written ({reason}); the previous file is untouched"
        raise OSError(error.errno, message) from error
    finally:
        with suppress(OSError):
            part.unlink()


def atomic_write(path: Path, content: bytes | str) -> None:
    """Write a whole file, or leave the previous one untouched; see `atomic_open`."""
    if isinstance(content, str):
        content = content.encode()
    with atomic_open(path) as file:
        file.write(content)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock `path` against other processes of this machine; wait while another process has it.

    The operating system holds the lock, so it ends with the process that took it. Where the file
    system has no locks, a warning is printed and nothing is locked. Raises OSError, which names
    the lock file `.<name>.lock`, where it cannot be written.
    """
    lock = FileLock(path.with_name(f".{path.name}.lock"), fallback_to_soft=False)
    try:
        try:
            lock.acquire(timeout=SHORT_WAIT)
        except Timeout:
            print_error(f"{path} is being written by another process; waiting for it")
            lock.acquire()
    except OSError as error:
        if error.errno not in NO_LOCKS:
            message = f"{lock.lock_file} could not be written ({error.strerror or error})"
            raise OSError(error.errno, message) from error
        print_error(
            f"{path.parent} is on a file system without locks: "
            "make sure that no run is trained twice at the same time"
        )
    try:
        yield
    finally:
        lock.release()


def single_line(error: object) -> str:
    """Return the message of an error on one line; the name of its class where it has none.

    Characters that a terminal would act on, as file names may have them, are written as escapes.
    """
    text = " ".join(str(error).split()) or type(error).__name__
    characters = [letter if letter.isprintable() else repr(letter)[1:-1] for letter in text]
    return "".join(characters)


def print_error(text: object) -> None:
    """Print one line to the error stream."""
    print(single_line(text), file=sys.stderr)


def progress_bar(iterable=None, **options) -> tqdm:
    """Return tqdm's progress bar, visible in a terminal or in Jupyter, hidden elsewhere.

    It is plain text in Jupyter too, since a widget would leave its state in the saved notebook.
    `TQDM_DISABLE=1` hides it everywhere.
    """
    in_jupyter = "ipykernel" in sys.modules
    disabled = bool(os.environ.get("TQDM_DISABLE"))
    hidden = disabled or not (in_jupyter or sys.stderr.isatty())
    return tqdm(iterable, disable=hidden, leave=False, dynamic_ncols=not in_jupyter, **options)


def check_int(name: str, value: object, at_least: int, at_most: int = MAX_INT) -> int:
    """Return `value` as an int; raise ValueError unless it is one from `at_least` to `at_most`."""
    is_integer = isinstance(value, Integral) and not isinstance(value, bool)
    if is_integer and at_least <= value <= at_most:
        return int(value)
    if at_most == MAX_INT:
        bounds = f"of at least {at_least}"
    else:
        bounds = f"from {at_least} to {at_most}"
    raise ValueError(f"{name} is {value!r}; give a whole number {bounds}")


def check_float(
    name: str,
    value: object,
    *,
    above: float | None = None,
    at_least: float = 0.0,
    at_most: float = sys.float_info.max,
    below: float | None = None,
) -> float:
    """Return `value` as a float; raise ValueError where it is no number within the bounds.

    `above` and `below` exclude the bound itself, `at_least` and `at_most` include it.
    """
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if is_number and at_least <= value <= at_most:
        above_lower = above is None or value > above
        below_upper = below is None or value < below
        if above_lower and below_upper:
            return float(value)
    lower = f"of at least {at_least:g}" if above is None else f"above {above:g}"
    upper = ""
    if below is not None:
        upper = f" and below {below:g}"
    elif at_most != sys.float_info.max:
        upper = f" and at most {at_most:g}"
    raise ValueError(f"{name} is {value!r}; give a number {lower}{upper}")


def check_bool(name: str, value: object) -> bool:
    """Return `value`; raise ValueError unless it is True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}; give True or False")
    return value


def check_choice(name: str, value: object, choices: Collection[str]) -> str:
    """Return `value`; raise ValueError, which lists the choices, unless it is one of them."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"unknown {name} {value!r}; choose one of {', '.join(choices)}")
    return value
