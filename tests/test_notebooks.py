"""The pairs, their stored outputs, and the parameters that the Makefile passes."""

import json
import re
import shlex
import subprocess
from pathlib import Path

import jupytext
import pytest
from jupytext.compare import compare_notebooks

from vae_core.execute import execute, notebook_parameters, parse_parameters
from vae_core.files import PROJECT

NOTEBOOKS = PROJECT / "notebooks"
SOURCES = sorted(NOTEBOOKS.glob("*.py"))
EVERY_NOTEBOOK_HAS = {"params", "dataset", "seed", "max_epochs"}


def test_each_source_has_its_notebook_and_each_notebook_its_source():
    assert SOURCES
    assert [path.stem for path in SOURCES] == sorted(
        path.stem for path in NOTEBOOKS.glob("*.ipynb")
    )


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_the_two_of_a_pair_say_the_same(source):
    written, stored = jupytext.read(source), jupytext.read(source.with_suffix(".ipynb"))
    # Raises with a diff; `make pair` brings the .ipynb up to date.
    compare_notebooks(stored, written, fmt="py:percent")


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_outputs_are_stored(source):
    """Without them nbval compares nothing and passes; `make reference` stores them."""
    cells = json.loads(source.with_suffix(".ipynb").read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    for number, cell in enumerate(code, start=1):
        assert cell["execution_count"] == number, "".join(cell["source"])
        assert all(output["output_type"] != "error" for output in cell["outputs"])
        shows = re.search(r"^(print|plt\.show|\w+_table)\(", "".join(cell["source"]), re.MULTILINE)
        assert not shows or cell["outputs"], "".join(cell["source"])


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_every_notebook_has_the_common_parameters(source):
    assert notebook_parameters(source).keys() >= EVERY_NOTEBOOK_HAS


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_no_code_that_belongs_in_a_module(source):
    for cell in jupytext.read(source).cells:
        if cell.cell_type == "code":
            assert not re.search(r"^\s*(def|class|while)\b|\.backward\(|plt\.plot", cell.source)


def commands_of_the_report() -> list[list[str]]:
    """What `make report` would execute, without executing it."""
    dry_run = subprocess.run(
        ["make", "--dry-run", "--always-make", "report", "REPORT=/nowhere", "RETRAIN=1"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    lines = [line for line in dry_run.splitlines() if "vae_core.execute" in line]
    return [shlex.split(line.split("vae_core.execute", 1)[1]) for line in lines]


def test_the_report_passes_only_parameters_that_the_notebooks_have():
    commands = commands_of_the_report()
    executed = set()
    for words in commands:
        notebook = next(PROJECT / word for word in words if word.endswith(".py"))
        settings = [word for word in words if re.match(r"[a-z_]+=", word)]
        assert {setting.partition("=")[0] for setting in settings} >= EVERY_NOTEBOOK_HAS
        parse_parameters(notebook, settings)
        executed.add(notebook.stem)
    assert executed == {path.stem for path in SOURCES}


def test_interpolation_in_published_models_needs_no_data(tmp_path):
    settings = {"published": "cifar10-jpeg", "params": "p2", "dataset": "/nowhere"}
    executed = tmp_path / "interpolation.ipynb"
    result = execute(NOTEBOOKS / "03_interpolation.py", executed, settings, timeout=300)
    assert (result["status"], result["error"]) == ("done", "")
    assert executed.read_text().count('"image/png"') == 4


def test_misspelt_parameter_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'max_epoch'.*max_epochs"):
        parse_parameters(SOURCES[0], ["max_epoch=3"])


def test_parameters_get_the_type_that_the_notebook_has():
    source = NOTEBOOKS / "01_fc_vs_cvae.py"
    settings = ["dataset=123", "limit=None", "fraction=0.3", "retrain=True", "seed=7"]
    assert parse_parameters(source, settings) == {
        "dataset": "123",
        "limit": None,
        "fraction": 0.3,
        "retrain": True,
        "seed": 7,
    }
    with pytest.raises(ValueError, match="seed is 'seven'"):
        parse_parameters(source, ["seed=seven"])
    with pytest.raises(FileNotFoundError, match="none"):
        parse_parameters(Path("none.py"), [])
