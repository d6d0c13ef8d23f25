"""Executing a notebook and what the report shows of it, with notebooks made for the test."""

import json
import os
import time

import jupytext
import nbformat
import pytest

from vae_core import execute as execution
from vae_core import report
from vae_core.execute import execute, notebook_parameters

HEADER = (
    '# %% [markdown]\n# # On $x^2$\n\n# %% tags=["parameters"]\nparams = "p1"\nseed = 0\n\n# %%\n'
)


@pytest.fixture
def notebook(tmp_path):
    def written(code, name="01_test"):
        path = tmp_path / "notebooks" / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(HEADER + code)
        return path

    return written


@pytest.fixture
def output(tmp_path):
    return tmp_path / "report" / "01_test-p1.ipynb"


def status_of(output):
    return json.loads(output.with_suffix(".json").read_text())


def test_done(notebook, output):
    result = execute(notebook("print(params, seed * 2)"), output, {"seed": 21}, timeout=60)
    assert result["status"] == "done" and result == status_of(output)
    cells = nbformat.read(output, as_version=4).cells
    assert cells[-1].outputs[0].text == "p1 42\n"
    assert sorted(path.suffix for path in output.parent.iterdir()) == [".ipynb", ".json"]


def test_failed_names_the_cell_and_the_error_and_keeps_the_log(notebook, output, capsys):
    output.parent.mkdir()
    output.write_text("an old page")
    source = notebook("value = 1\n\n# %%\nraise RuntimeError('no luck')")
    assert execution.main([str(source), str(output), "seed=3"]) == 1
    assert "cell 4: RuntimeError: no luck" in capsys.readouterr().out
    assert status_of(output)["error"] == "cell 4: RuntimeError: no luck"
    assert not output.exists(), "an old page must not be shown as new"
    assert "no luck" in output.with_suffix(".log").read_text()
    assert output.with_suffix(".failed.ipynb").exists()


def test_missing_data_set_is_skipped(notebook, output):
    code = "from vae_core.data import DatasetMissing\nraise DatasetMissing('put it there')"
    assert execution.main([str(notebook(code)), str(output)]) == 0
    assert status_of(output)["status"] == "skipped"
    assert "put it there" in status_of(output)["error"]


def test_time_out(notebook, output):
    result = execute(notebook("import time\ntime.sleep(60)"), output, {}, timeout=3)
    assert (result["status"], result["error"]) == ("failed", "a cell took longer than 3 s")


@pytest.mark.parametrize("code", ["import os; os._exit(1)", "import sys; sys.exit(0)"])
def test_dead_or_departed_kernel(notebook, output, code):
    result = execute(notebook(code), output, {}, timeout=60)
    assert result["status"] == "failed" and not output.exists()


def test_notebook_without_parameters(tmp_path):
    path = tmp_path / "plain.py"
    path.write_text("# %%\nx = 1\n")
    with pytest.raises(ValueError, match="no cell tagged 'parameters'"):
        notebook_parameters(path)


def executed(folder, name, status="done", error="", text="a < b", age=0):
    """Put an executed notebook into a report's folder, as `execute` does."""
    folder.mkdir(exist_ok=True)
    result = {"notebook": name.partition("-")[0], "status": status, "error": error}
    result |= {"seconds": 1.5, "parameters": {"dataset": "shapes", "seed": 0}}
    (folder / f"{name}.json").write_text(json.dumps(result))
    if status == "done":
        cells = jupytext.reads(HEADER + "print(1)", fmt="py:percent")
        cells.cells[-1].outputs = [nbformat.v4.new_output("stream", text=text)]
        cells.cells[-1].metadata["tags"] = ["report"]
        path = folder / f"{name}.ipynb"
        nbformat.write(cells, path)
        os.utime(path, (time.time() - age, time.time() - age))


def test_index_shows_every_page_as_what_it_is(tmp_path):
    executed(tmp_path, "good")
    executed(tmp_path, "bad-p1", "failed", "cell 4: ValueError: <oops>")
    executed(tmp_path, "absent", "skipped", "CelebA is not here")
    executed(tmp_path, "old", age=10 * 365 * 86400, text="an old number")
    (tmp_path / "bad-p1.html").write_text("an old page")
    names = ["good", "bad-p1", "absent", "old", "never"]
    assert report.main([str(tmp_path), *names]) == 0
    index = (tmp_path / "index.html").read_text()
    assert '<a href="good.html">good</a>' in index
    assert "failed: cell 4: ValueError: &lt;oops&gt;" in index
    assert "skipped: CelebA is not here" in index
    assert "out of date, not executed again" in index and "an old number" not in index
    assert "waiting: not executed" in index
    assert "a &lt; b" in index
    assert "torch 2." in index and "shapes" in index
    assert [path.name for path in sorted(tmp_path.glob("*.html"))] == ["good.html", "index.html"]


def test_pages_need_no_network_and_have_their_maths(tmp_path):
    executed(tmp_path, "good")
    report.main([str(tmp_path), "good"])
    page = (tmp_path / "good.html").read_text()
    assert "<math" in page and "ns0" not in page and "$" not in page.split("<body>")[1]
    for text in (page, (tmp_path / "index.html").read_text()):
        assert "http://" not in text.replace("http://www.w3.org", "")
        assert "https://" not in text
        assert 'name="viewport"' in text


def test_damaged_status_is_no_page(tmp_path):
    executed(tmp_path, "good")
    (tmp_path / "good.json").write_text("{")
    report.main([str(tmp_path), "good"])
    assert "waiting" in (tmp_path / "index.html").read_text()
