import os
import shutil

import jupytext
import pytest
from helpers import contents, one_line

from vae_core.storage import PROJECT
from vae_study.pairs import update_pairs

SOURCE = "# %% [markdown]\n# # A question?\n\n# %%\n1 + 1\n\n# %%\nprint(2)\n"


@pytest.fixture
def pair(tmp_path):
    """A source and its notebook, which is up to date."""
    shutil.copy(PROJECT / "notebooks" / "jupytext.toml", tmp_path)
    source = tmp_path / "01_a.py"
    source.write_text(SOURCE)
    update_pairs(tmp_path)
    return source, source.with_suffix(".ipynb")


def make_newer(path, other):
    time = other.stat().st_mtime + 10
    os.utime(path, (time, time))


def test_an_edited_source_updates_the_notebook_and_keeps_its_outputs(pair):
    source, notebook = pair
    stored = jupytext.read(notebook)
    stored.cells[1].execution_count = 7
    jupytext.write(stored, notebook)
    source.write_text(SOURCE.replace("print(2)", "print(3)"))
    make_newer(source, notebook)
    update_pairs(source.parent)
    updated = jupytext.read(notebook)
    assert updated.cells[2].source == "print(3)"
    assert updated.cells[1].execution_count == 7


def test_an_edited_notebook_is_not_overwritten(pair):
    source, notebook = pair
    stored = jupytext.read(notebook)
    stored.cells[2].source = "print('mine')"
    jupytext.write(stored, notebook)
    make_newer(notebook, source)
    before = contents(source.parent)
    with pytest.raises(ValueError, match=r"01_a\.ipynb .*cells 3") as error:
        update_pairs(source.parent)
    one_line(error)
    assert contents(source.parent) == before
    make_newer(source, notebook)  # what the message says drops the edit
    update_pairs(source.parent)
    assert jupytext.read(notebook).cells[2].source == "print(2)"
