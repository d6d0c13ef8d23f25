"""What docs/extending.md says about adding a model, a set and a notebook, followed literally."""

import os
import re
import shutil
import subprocess
import sys

import jupytext
import pytest

from vae_core.storage import PROJECT

GUIDE = (PROJECT / "docs" / "extending.md").read_text(encoding="utf-8")
SCRIPT = """
import matplotlib, pandas, sys, torch
matplotlib.use("agg")
from vae_core import figures
from vae_core.data import load_dataset
from vae_core.runs import load_run, train_or_load
from vae_core.runs.results import result_row
from vae_study.claims import results_table

data = load_dataset("shapes", limit=60)
options = {"max_epochs": 1, "checkpoints": "checkpoints", "device": "cpu", "precision": "float32"}
old = train_or_load("conv", "p1", data, **options)
if sys.argv[1] == "before":
    raise SystemExit
size = load_dataset("shapes", limit=60, size=64)
runs = [old, *(train_or_load("small", params, data, **options) for params in ("p1", "p4"))]
assert runs[2].model.latent_dim == 64 and runs[2].config.params.batch_size == 32
assert train_or_load("small", "p1", size, **options).model.sample(1).shape == (1, 3, 64, 64)
again = load_run(runs[1].folder)
assert torch.equal(again.model.to_mu.weight, runs[1].model.to_mu.weight)
table = pandas.DataFrame([result_row(run, data) for run in runs])
assert ("p1", "small VAE") in results_table(table).index
curves = figures.loss_curves({run.model.title: run for run in runs}, "Loss").axes[0]
assert {line.get_color() for line in curves.lines} >= {"#6b7a8f"}
"""


def recipes(title):
    """The Python blocks of the section of this title."""
    section = GUIDE.partition(f"## {title}\n")[2].partition("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A copy of the project, to be changed."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("vae_core", "vae_study", "pyproject.toml", ".ipython"):
        copy = shutil.copytree if (PROJECT / name).is_dir() else shutil.copy
        copy(PROJECT / name, folder / name)
    for name in ("notebooks", "figures", "checkpoints"):
        (folder / name).mkdir()
    return folder


def python(clone, *arguments):
    paths = {"PYTHONPATH": str(clone), "IPYTHONDIR": str(clone / ".ipython")}
    options = {"cwd": clone, "env": os.environ | paths | {"OMP_NUM_THREADS": "1"}, "timeout": 300}
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, **options, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def insert_before(path, mark, text):
    before, present, after = path.read_text(encoding="utf-8").partition(mark)
    assert present
    path.write_text(before + text + mark + after, encoding="utf-8")


def test_a_model_and_a_parameter_set_are_one_place_each(clone):
    python(clone, "-c", SCRIPT, "before")
    model, model_import, entry = recipes("Add a model")
    (parameter_set,) = recipes("Add a parameter set")
    models = clone / "vae_core" / "models"
    (models / "small.py").write_text(model)
    insert_before(models / "__init__.py", "from vae_core.models.vae", model_import)
    insert_before(models / "__init__.py", '    "fc": FCVAE', entry)
    insert_before(clone / "vae_core" / "config.py", '    "p1": ParameterSet', parameter_set)
    done = python(clone, "-c", SCRIPT, "after")
    assert "previous" not in done.stderr, "a finished run of another model was touched"
    assert len(list(clone.glob("checkpoints/shapes-limit60/conv*"))) == 1


def test_a_notebook_is_one_file(clone):
    (recipe,) = recipes("Add a notebook")
    source = clone / "notebooks" / "11_one_image.py"
    source.write_text(recipe)
    shutil.copy(PROJECT / "notebooks" / "jupytext.toml", clone / "notebooks")
    code = (
        "from vae_study.page_list import *; print([page.name for page in report_pages(Settings())])"
    )
    assert python(clone, "-c", code).stdout.strip() == "['11_one_image']"
    python(clone, "-m", "jupytext", "--quiet", "--to", "ipynb", "--update", source)
    stored = source.with_suffix(".ipynb")
    python(clone, "-m", "nbconvert", "--to", "notebook", "--execute", "--inplace", stored)
    assert "image/png" in str(jupytext.read(stored).cells[-1].outputs)
