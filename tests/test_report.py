"""Executing notebooks made for the test, and what the pages show of them."""

import base64
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import jupytext
import nbformat
import psutil
import pytest
from helpers import wait_for

from vae_core.runs import train_or_load
from vae_core.runs.results import result_row
from vae_core.storage import PROJECT
from vae_study import engine, html, page_list
from vae_study.execute import PageOutcome
from vae_study.page_list import Page, report_pages
from vae_study.report import claim_folder, report
from vae_study.settings import Settings

HEADER = """# %% [markdown]
# # Is $x^2$ < `$HOME`?
#
# A question about **{name}**.

# %% tags=["parameters"]
params = "p9"
dataset = "nothing"
seed = 7
max_epochs = 9
limit = None
size = 16
precision = "auto"

# %% tags=["report"]
"""
FOLDER = "it's {x} $y;z"


def train_in_turn(tasks, settings, console=None):
    """What the engine does, in this process."""
    outcomes = []
    for task in tasks:
        run = train_or_load(**task.arguments, checkpoints=settings.checkpoints)
        outcomes.append(engine.Outcome(task, result_row(run)))
    return outcomes


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    """A function that writes a notebook of the report."""
    folder = tmp_path / FOLDER / "notebooks"
    folder.mkdir(parents=True)
    monkeypatch.setattr(page_list, "NOTEBOOKS", folder)
    monkeypatch.setattr(engine, "run_all", train_in_turn)

    def write(name, code):
        path = folder / f"{name}.py"
        path.write_text(HEADER.format(name=name) + code, encoding="utf-8")
        return path

    return write


@pytest.fixture
def settings(tmp_path):
    return Settings(
        max_epochs=1,
        limit=64,
        size=8,
        precision="float32",
        sets=("p1",),
        workers=2,
        report=tmp_path / FOLDER / "report",
        checkpoints=tmp_path / "checkpoints",
    )


def index(settings):
    return (settings.report / "index.html").read_text(encoding="utf-8")


def states(settings):
    return re.findall(r'<td class="text (\w+)">(.*)</td>', index(settings))


def test_the_front_page_says_what_became_of_every_page(notebook, settings, capsys):
    notebook("10_good", "print(params, seed, limit, 'a < b')")
    notebook("11_bad", "print('before')\n\n# %%\nraise RuntimeError('no <luck>')")
    notebook("12_absent", "from vae_core.data import DatasetMissing as M\nraise M('put it there')")
    notebook("13_dead", "import os; os._exit(1)")
    notebook("14_ended", "import sys; sys.exit(0)")
    figure = "class Figure:\n    def _repr_png_(self):\n        raise OSError('cannot draw')\n\n"
    notebook("15_figure", f"{figure}Figure()")
    source = notebook("16_short", "pass")
    source.write_text(source.read_text().replace("seed = 7\n", ""))
    notebook("17_odd", "").write_bytes(b"\xff\xfe")
    notebook("18_blind", "import matplotlib\nmatplotlib.use('agg')\n# plt.show()")
    claim_folder(settings.report)
    (settings.report / "11_bad.html").write_text("an old page")
    assert report(settings) == 1
    expected = [
        ("done", "done"),
        ("failed", "RuntimeError: no &lt;luck&gt;"),
        ("skipped", "put it there"),
        ("failed", "the kernel died"),
        ("failed", "ended the notebook"),
        ("failed", "OSError: cannot draw"),
        ("failed", "&#39;seed&#39;"),
        ("failed", "failed: "),
        ("failed", "no figure was drawn"),
    ]
    for (state, text), (expected_state, part) in zip(states(settings), expected, strict=True):
        assert state == expected_state
        assert part in text
    assert "p1 0 64 a &lt; b" in index(settings)
    assert "A question about <strong>10_good</strong>" in index(settings)
    assert "no <luck>" in (settings.report / "11_bad.log").read_text()
    assert (settings.report / "11_bad.failed.ipynb").exists()
    kept = {path.name for path in settings.report.glob("*.html")}
    assert kept == {"index.html", "10_good.html"}
    assert "11_bad: failed cell 4" in capsys.readouterr().out


def test_only_what_has_changed_is_executed_again(notebook, settings):
    mark = settings.report.parent / "executed"
    code = f"open({str(mark)!r}, 'a').write(dataset + ' ')"
    first, second = notebook("10_one", code), notebook("11_two", code.replace("dataset", "'two'"))

    def executed():
        mark.unlink(missing_ok=True)
        assert report(settings) == 0
        return sorted(mark.read_text().split()) if mark.exists() else []

    assert executed() == ["shapes", "two"]
    os.utime(first, (time.time() + 1e6,) * 2)  # content decides, not time
    assert executed() == []
    first.write_text(first.read_text() + "\nprint('changed')")
    assert executed() == ["shapes"]
    (settings.report / "11_two.ipynb").write_bytes(b'{"cells": [')
    assert executed() == ["two"]
    published = settings.checkpoints / "published" / "shapes" / "run"
    published.mkdir(parents=True)
    (published / "run.json").write_text("{}")
    assert executed() == ["shapes", "two"]
    # A source that changes while it is executed: the page is of what it was before.
    second.write_text(HEADER + f"open({str(second)!r}, 'a').write('# ')\n{code}")
    assert executed() == ["shapes"]
    assert executed() == ["shapes"]


def test_a_page_needs_no_network_and_shows_what_was_used(notebook, settings, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")  # as on servers
    plot = "import matplotlib.pyplot as plt\nplt.plot([1])\nplt.show()"
    notebook("10 it's {one}", f"{plot}\n\n# %% [markdown]\n# No maths: $\\frac{{1$")
    bare = notebook("11_two", "print(2)")
    bare.write_text(HEADER.partition("\n\n")[2])  # no question
    last = notebook("12_three", "print(3)")
    last.write_text(last.read_text().replace("# # Is", "# # Which"))
    assert report(settings) == 0
    page = (settings.report / "10 it's {one}.html").read_text(encoding="utf-8")
    assert "<math" in page
    assert "ns0" not in page
    assert "<code>$HOME</code>" in page
    assert "data:image/png" in page
    assert "p9" not in page
    assert page.count("max_epochs") == 1
    assert '<a href="11_two.html">' in page
    assert '"10%20it' in index(settings)
    for text in (page, index(settings)):
        assert not re.findall(r"(?:src|href|url\()\W*https?:", text)
        assert 'name="viewport"' in text
    # The front page has the README's answer and leads on.
    answer = html.readme_answer()["answer"].replace("*", "")
    assert answer[:20] in re.sub("<.*?>", "", index(settings))
    contents = index(settings).partition("Contents")[2]
    assert re.search(r'<a href="12_three.html">Which <math.*?</math>', contents)
    assert "← Is <math" in (settings.report / "11_two.html").read_text(encoding="utf-8")
    page = (settings.report / "12_three.html").read_text(encoding="utf-8")
    assert page.count('href="index.html#contents"') == page.count('href="11_two.html"') == 2
    assert page.count('<details class="code" open') == 2


def test_a_notebook_with_live_widgets_is_shown_with_their_image(notebook, settings):
    view = {"version_major": 2, "version_minor": 0, "model_id": "abc"}
    data = {"application/vnd.jupyter.widget-view+json": view, "image/png": "iVBORw0KGgo="}
    cell = nbformat.v4.new_code_cell(outputs=[nbformat.v4.new_output("display_data", data)])
    state = {"version_major": 2, "version_minor": 0, "state": {"abc": {"model_name": "Box"}}}
    widgets = {"application/vnd.jupyter.widget-state+json": state}
    metadata = {"widgets": widgets, "papermill": {"duration": 1.0}}
    live = nbformat.v4.new_notebook(cells=[cell], metadata=metadata)
    page = Page("10_live", notebook("10_live", ""), {"dataset": "shapes"}, [])
    html.write_pages(settings.report, [PageOutcome(page, "done", notebook=live)], strip="")
    assert "iVBORw0KGgo=" in (settings.report / "10_live.html").read_text(encoding="utf-8")


def test_the_front_page_shows_the_answer_of_the_readme_if_there_is_one(tmp_path, monkeypatch):
    monkeypatch.setattr(html, "PROJECT", tmp_path)
    assert html.readme_answer() == {}
    readme = "<!-- answer -->\nBy <!--gain-->2.7<!----> nats.\n<!-- end of answer -->\n\n"
    (tmp_path / "README.md").write_text(readme + "![the losses](losses.png)")
    assert html.readme_answer() == {}
    (tmp_path / "losses.png").write_bytes(b"a picture")
    answer = html.readme_answer()
    assert (answer["answer"], answer["caption"]) == ("By 2.7 nats.", "the losses")
    assert base64.b64decode(answer["picture"]) == b"a picture"


@pytest.mark.parametrize("existing", ["folder", "file"])
def test_a_folder_that_holds_something_else_is_left_alone(notebook, settings, existing):
    notebook("10_one", "")
    if existing == "folder":
        settings.report.mkdir()
        (settings.report / "thesis.txt").write_text("mine")
    else:
        settings.report.write_text("mine")
    with pytest.raises(ValueError, match="REPORT="):
        report(settings)
    assert not list(settings.report.parent.glob("report/*.html"))


def test_a_missing_data_set_leaves_out_its_pages(notebook, settings, capsys):
    notebook("04_celeba", "")
    notebook("05_posterior_collapse", "")
    without_faces = replace(settings, faces="celeba")
    assert report(without_faces) == 0
    assert [state for state, _ in states(settings)] == ["skipped", "done"]
    assert "img_align_celeba" in states(settings)[0][1]
    assert "celeba" in capsys.readouterr().err
    assert report(replace(settings, dataset="celeba")) == 1
    assert [state for state, _ in states(settings)] == ["done", "skipped"]
    with pytest.raises(FileNotFoundError, match="nowhere"):
        report(replace(settings, faces="/nowhere"))


def test_a_failed_training_fails_its_page_alone(notebook, settings, monkeypatch):
    notebook("04_celeba", "")
    notebook("05_posterior_collapse", "")

    def run_all(tasks, settings):
        faces = [task for task in tasks if task.dataset == "faces"]
        others = [task for task in tasks if task.dataset != "faces"]
        failed = [engine.Outcome(task, error="diverged") for task in faces]
        return failed + train_in_turn(others, settings)

    monkeypatch.setattr(engine, "run_all", run_all)
    assert report(settings) == 1
    assert states(settings)[0][0] == "failed"
    assert "seed 0: diverged" in states(settings)[0][1]
    assert states(settings)[1][0] == "done"


def test_make_study_announces_the_runs_and_writes_their_table(notebook, settings, capsys):
    notebook("04_celeba", "")
    two_seeds = replace(settings, seeds=(0, 1))
    assert report(two_seeds, all_seeds=True) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("3 runs, 3 of them")
    assert len((settings.report / "results.csv").read_text().splitlines()) == 4
    assert report(two_seeds, all_seeds=True) == 0
    assert "3 runs, 0 of them" in capsys.readouterr().out


def test_every_notebook_has_a_page_and_the_default_ones_train_only_the_comparison():
    pages = report_pages(Settings())
    stems = {page.notebook.stem for page in pages}
    assert stems == {path.stem for path in (PROJECT / "notebooks").glob("[0-9]*.py")}
    assert len({page.name for page in pages}) == len(pages)
    trained = {task.dataset for page in pages for task in page.tasks}
    assert trained == {"shapes"}
    retrained = report_pages(Settings(retrain=True))
    assert {task.dataset for page in retrained for task in page.tasks} == {"shapes", "faces"}


@pytest.mark.parametrize("settings", [Settings(), Settings(retrain=True)], ids=["stored", "own"])
def test_every_notebook_has_the_parameters_that_its_pages_pass(settings):
    for page in report_pages(settings):
        cells = jupytext.read(page.notebook).cells
        (cell,) = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
        names = set(re.findall(r"^(\w+) = ", cell.source, re.MULTILINE))
        assert names >= page.parameters.keys(), page.name


@pytest.fixture
def process(tmp_path):
    """A function that starts `python -m vae_study report` in a clone with one notebook."""
    clone = tmp_path / "a b" / FOLDER
    for name in ("vae_study", "vae_core"):
        shutil.copytree(PROJECT / name, clone / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / "pyproject.toml", clone)
    (clone / "notebooks").mkdir()

    def start(code, **environment):
        path = clone / "notebooks" / "10_one.py"
        path.write_text(HEADER.format(name="ä") + code, encoding="utf-8")
        environment |= {"IPYTHONDIR": str(PROJECT / ".ipython")}
        command = [sys.executable, "-m", "vae_study", "report"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return clone, subprocess.Popen(command, cwd=clone, env=os.environ | environment, **pipes)

    return start


def test_a_locale_without_unicode_does_no_harm(process):
    locale = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    clone, running = process("print('σ ± μ')", **locale)
    output, _ = running.communicate(timeout=300)
    assert running.returncode == 0, output
    assert "σ ± μ" in (clone / "report" / "10_one.html").read_text(encoding="utf-8")


def test_an_interruption_is_one_line_and_leaves_no_kernel(process):
    clone, running = process("import time\nopen('begun', 'w').close()\ntime.sleep(600)")
    begun = clone / "notebooks" / "begun"
    wait_for(lambda: begun.exists() or running.poll() is not None)
    kernels = psutil.Process(running.pid).children(recursive=True)
    running.send_signal(signal.SIGINT)
    output, _ = running.communicate(timeout=60)
    assert running.returncode == 130
    (line,) = output.decode().splitlines()
    assert line.startswith("stopped")
    assert kernels
    assert not psutil.wait_procs(kernels, timeout=60)[1]
