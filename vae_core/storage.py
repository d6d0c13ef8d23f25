"""Files written whole or not at all, one writer at a time, and what the modules share."""

import ast
import errno
import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from numbers import Integral, Real
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout
from tqdm import tqdm

# Installed as a wheel there is no project around the package, and its folders are the user's.
_ABOVE = Path(__file__).resolve().parents[1]
PROJECT = _ABOVE if (_ABOVE / "pyproject.toml").exists() else Path.cwd()
DATA = PROJECT / "data"
CHECKPOINTS = PROJECT / "checkpoints"
LARGEST = 2**63 - 1  # of torch's and numpy's whole numbers


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that appears at `path` only when the block ends without an error.

    Until then the bytes go to `.<name>.part` beside it. Folders are created. Two processes must
    not write one path at the same time (see `held`). An OSError names what cannot be written.
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
        raise OSError(
            error.errno,
            f"{path} could not be written ({error.strerror or error}); what was there is untouched",
        ) from error
    finally:
        with suppress(OSError):
            part.unlink()


def write(path: Path, content: bytes | str) -> None:
    """Write a whole file, or nothing; see `writing`."""
    with writing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold `path` against other processes of this machine; wait while another one holds it.

    The lock is the operating system's, so that of a dead process is gone with it. Where the file
    system has no locks, a line on the error stream says so and nothing is held. An OSError names
    the lock file, `.<name>.lock`, if it cannot be written.
    """
    lock = FileLock(path.with_name(f".{path.name}.lock"), fallback_to_soft=False)
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            say(f"{path} is being written by another process; waiting for it")
            lock.acquire()
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            message = f"{lock.lock_file} could not be written ({error.strerror or error})"
            raise OSError(error.errno, message) from error
        say(f"{path.parent} is on a file system without locks: never start one training twice")
    try:
        yield
    finally:
        lock.release()


def code_hash(*sources: str) -> str:
    """Return 16 hex digits over the syntax trees of Python sources: what results depend on.

    Comments, docstrings, layout and what errors say do not count.
    """
    digest = hashlib.sha256()
    for source in sources:
        tree = ast.parse(source)
        for node in ast.walk(tree):
            documented = isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
            if documented and ast.get_docstring(node) is not None:
                node.body = node.body[1:] or [ast.Pass()]
            elif isinstance(node, ast.Raise):
                node.exc = node.cause = None
        digest.update(ast.unparse(tree).encode())
    return digest.hexdigest()[:16]


def whole_number(name: str, value: object, least: int, most: int = LARGEST) -> int:
    """Return `value` as an int; a ValueError names what is none from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or not least <= value <= most:
        bounds = f"of at least {least}" if most == LARGEST else f"from {least} to {most}"
        raise ValueError(f"{name} is {value!r}; give a whole number {bounds}")
    return int(value)


def number(name: str, value: object, above=-1.0, most=sys.float_info.max) -> float:
    """Return `value` as a float of 0 to `most`, above `above`; else a ValueError names it."""
    fits = isinstance(value, Real) and not isinstance(value, bool) and 0 <= value <= most
    if not fits or value <= above:
        bounds = f"above {above:g} and at most {most:g}" if above >= 0 else "of at least 0"
        raise ValueError(f"{name} is {value!r}; give a number {bounds}")
    return float(value)


def in_one_line(error: object) -> str:
    """Return what an error says, on one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text.encode(errors="backslashreplace").decode()  # files may have names that are no text


def say(text: object) -> None:
    """Print one line on the error stream."""
    print(in_one_line(text), file=sys.stderr)


def progress(iterable=None, **options) -> tqdm:
    """Wrap `iterable` in a bar, for a person who watches a terminal or Jupyter; else bare.

    It is text in Jupyter too: a widget would leave its state in the saved notebook.
    """
    in_jupyter = "ipykernel" in sys.modules
    hidden = bool(os.environ.get("TQDM_DISABLE")) or not (in_jupyter or sys.stderr.isatty())
    return tqdm(iterable, disable=hidden, leave=False, dynamic_ncols=not in_jupyter, **options)
