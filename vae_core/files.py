"""Where the project's folders are, and how its files are written: whole or not at all."""

import ast
import hashlib
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import BinaryIO

from filelock import FileLock, Timeout

PROJECT = Path(__file__).resolve().parents[1]
DATA = PROJECT / "data"
CHECKPOINTS = Path(os.environ.get("VAE_CHECKPOINTS") or PROJECT / "checkpoints")


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that appears at `path` only when the block ends without an error.

    Until then the bytes go to `.<name>.part` beside it, and what was at `path` stays untouched.
    Folders are created. Two processes must not write one path at the same time (see `held`).

    Raises:
        OSError: the file cannot be written (full or read-only disk, no permission); the
            message names `path`.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise OSError(
            error.errno,
            f"{path} could not be written ({reason}); what was there before is untouched. "
            "Free some space or choose a folder that can be written, then start again",
        ) from error


def write(path: Path, content: bytes | str | Iterable[bytes]) -> None:
    """Write a whole file, or nothing; see `writing`."""
    if isinstance(content, str):
        content = content.encode()
    if isinstance(content, bytes):
        content = [content]
    with writing(path) as file:
        file.writelines(content)


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold `path` against other processes of this machine; wait while another one holds it.

    The lock is the operating system's, so that of a dead process is gone with it.

    Raises:
        OSError: the lock file `.<name>.lock` cannot be written; the message names it.
    """
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"{path} is being written by another process; waiting for it", file=sys.stderr)
            lock.acquire()
    except OSError as error:
        reason = error.strerror or error
        raise OSError(error.errno, f"{lock.lock_file} could not be written ({reason})") from error
    try:
        yield
    finally:
        lock.release()


def code_hash(*modules: ModuleType) -> str:
    """Return a hash over the syntax trees of modules: what their results may depend on.

    Comments, docstrings and layout do not count.
    """
    digest = hashlib.sha256()
    for module in modules:
        tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            documented = isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
            if documented and ast.get_docstring(node) is not None:
                node.body = node.body[1:] or [ast.Pass()]
        digest.update(ast.unparse(tree).encode())
    return digest.hexdigest()[:16]
