"""`make pair`: bring each notebook up to date with its source, and lose no edit of the notebook."""

import sys
from itertools import zip_longest
from pathlib import Path

import jupytext
from jupytext.cli import jupytext as run_jupytext

from vae_core.storage import PROJECT, print_error


def update_pairs(folder: Path) -> None:
    """Bring every `.ipynb` of a folder up to date with its `.py`, keeping the outputs.

    Raises ValueError, which names the cells, where a notebook was edited after its source; then no
    file is changed.
    """
    sources = sorted(folder.glob("[0-9]*.py"))
    for source in sources:
        check_not_edited(source)
    run_jupytext(["--quiet", "--to", "ipynb", "--update", *map(str, sources)])


def check_not_edited(source: Path) -> None:
    """Raise ValueError where the notebook of a source was edited after the source."""
    notebook = source.with_suffix(".ipynb")
    if not notebook.exists() or notebook.stat().st_mtime <= source.stat().st_mtime:
        return
    cells = differing_cells(source, notebook)
    if cells:
        raise ValueError(
            f"{notebook.name} was edited after {source.name}: cells {', '.join(map(str, cells))} "
            f"differ. To take the edits: jupytext --to py:percent {notebook.name}. To drop them: "
            f"touch {source.name}, then make pair"
        )


def differing_cells(source: Path, notebook: Path) -> list[int]:
    """Return the numbers, from 1, of the cells whose input differs between the two files."""
    pairs = zip_longest(jupytext.read(source).cells, jupytext.read(notebook).cells)
    differing = []
    for number, (cell, stored) in enumerate(pairs, start=1):
        if cell is None or stored is None or input_of(cell) != input_of(stored):
            differing.append(number)
    return differing


def input_of(cell) -> tuple[str, str]:
    """Return what a cell is made of, without its outputs."""
    return cell.cell_type, cell.source.strip()


if __name__ == "__main__":
    try:
        update_pairs(PROJECT / "notebooks")
    except (ValueError, OSError) as error:
        print_error(f"error: {error}")
        sys.exit(1)
