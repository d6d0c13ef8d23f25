"""Executing notebooks made for the test, and what the pages show of them."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import nbformat
import psutil
import pytest
from test_study import SMALL, in_turn

from study import engine, pages, runs
from study.runs import Page, Settings
from vae_core.storage import PROJECT

HEADER = """# %% [markdown]
# # Is $x^2$ < `$HOME`?
#
# A question about **{name}**.

# %% tags=["parameters"]
params, dataset = "p9", "nothing"
seed = 7
max_epochs = 9
limit = None
size = 8
precision = "auto"
params = "p9"
dataset = "nothing"

# %% tags=["report"]
"""
PLACE = "it's {x} $y;z"


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    """A function that writes a notebook of the report."""
    folder = tmp_path / PLACE / "notebooks"
    folder.mkdir(parents=True)
    monkeypatch.setattr(runs, "NOTEBOOKS", folder)
    monkeypatch.setattr(engine, "run_all", in_turn)

    def write(name, code):
        path = folder / f"{name}.py"
        path.write_text(HEADER.format(name=name) + code, encoding="utf-8")
        return path

    return write


@pytest.fixture
def settings(tmp_path):
    places = {"report": tmp_path / PLACE / "report", "checkpoints": tmp_path / "checkpoints"}
    return Settings(**SMALL | {"workers": 2}, **places)


def index(settings):
    return (settings.report / "index.html").read_text(encoding="utf-8")


def states(settings):
    return re.findall(r'<td class="text (\w+)">(.*)</td>', index(settings))


def test_every_page_is_shown_as_what_became_of_it(notebook, settings, capsys):
    notebook("10_good", "print(params, seed, limit, 'a < b')")
    notebook("11_bad", "print('before')\n\n# %%\nraise RuntimeError('no <luck>')")
    notebook("12_absent", "from vae_core.data import DatasetMissing as M\nraise M('put it there')")
    notebook("13_dead", "import os; os._exit(1)")
    notebook("14_departed", "import sys; sys.exit(0)")
    figure = "class Figure:\n    def _repr_png_(self):\n        raise OSError('cannot draw')\n\n"
    notebook("15_figure", f"{figure}Figure()")
    source = notebook("16_short", "pass")
    source.write_text(source.read_text().replace("seed = 7\n", ""))
    notebook("17_odd", "").write_bytes(b"\xff\xfe")
    pages.claim(settings.report)
    (settings.report / "11_bad.html").write_text("an old page")
    assert pages.report(settings) == 1
    assert states(settings) == [
        ("done", "done"),
        ("failed", "failed: cell 4: RuntimeError: no &lt;luck&gt;"),
        ("skipped", "skipped: cell 3: DatasetMissing: put it there"),
        ("failed", "failed: the kernel died (out of memory, perhaps)"),
        ("failed", "failed: a cell ended the notebook"),
        ("failed", "failed: cell 3: OSError: cannot draw"),
        (
            "failed",
            "failed: its cell tagged &#39;parameters&#39; lacks &#39;seed&#39;; write it there",
        ),
        ("failed", states(settings)[-1][1]),
    ]
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
    one, other = notebook("10_one", code), notebook("11_two", code.replace("dataset", "'two'"))

    def executed():
        mark.unlink(missing_ok=True)
        assert pages.report(settings) == 0
        return sorted(mark.read_text().split()) if mark.exists() else []

    assert executed() == ["shapes", "two"]
    os.utime(one, (time.time() + 1e6,) * 2)  # content decides, not time
    assert executed() == []
    one.write_text(one.read_text() + "\nprint('changed')")
    assert executed() == ["shapes"]
    (settings.checkpoints / "published" / "shapes" / "run").mkdir(parents=True)
    (settings.checkpoints / "published" / "shapes" / "run" / "run.json").write_text("{}")
    assert executed() == ["shapes", "two"]
    for page, damage in (("10_one", b""), ("11_two", b'{"cells": [')):
        (settings.report / f"{page}.ipynb").write_bytes(damage)
    assert executed() == ["shapes", "two"]
    # A source that changes while it is executed: the page is of what it was before.
    self_changing = f"open({str(other)!r}, 'a').write('# ')\n{code}"
    other.write_text(HEADER + self_changing)
    assert executed() == ["shapes"] and executed() == ["shapes"]


def test_a_page_needs_no_network_and_shows_what_was_used(notebook, settings):
    notebook("10 it's {one}", "print(1)\n\n# %% [markdown]\n# No maths: $\\frac{1$")
    bare = notebook("11_two", "print(2)")
    bare.write_text(HEADER.partition("\n\n")[2])  # no question
    assert pages.report(settings) == 0
    page = (settings.report / "10 it's {one}.html").read_text(encoding="utf-8")
    assert "<math" in page and "ns0" not in page and "<code>$HOME</code>" in page
    assert "p9" not in page and page.count("max_epochs") == 1
    assert '<a href="11_two.html">' in page and '"10%20it' in index(settings)
    for text in (page, index(settings)):
        assert not re.findall(r"(?:src|href|url\()\W*https?:", text)
        assert 'name="viewport"' in text


def test_the_front_page_answers_and_leads_on(notebook, settings):
    notebook("10_one", "print(1)")
    second = notebook("11_two", "print(2)")
    second.write_text(second.read_text().replace("# # Is", "# # Which"))
    assert pages.report(settings) == 0
    answer = pages.ANSWER.search((PROJECT / "README.md").read_text(encoding="utf-8"))[1]
    text, asked = re.sub("<.*?>", "", index(settings)), index(settings).partition("Contents")[2]
    assert answer.replace("*", "").strip()[:40] in text
    assert re.search(r'<a href="11_two.html">Which <math.*?</math>', asked)
    page = (settings.report / "11_two.html").read_text(encoding="utf-8")
    assert page.count('href="index.html#contents"') == page.count('href="10_one.html"') == 2
    assert "← Is <math" in page and page.count('<details class="code" open') == 2


def test_a_notebook_with_live_widgets_is_shown_with_their_image(notebook, settings):
    view = {"version_major": 2, "version_minor": 0, "model_id": "abc"}
    data = {"application/vnd.jupyter.widget-view+json": view, "image/png": "iVBORw0KGgo="}
    cell = nbformat.v4.new_code_cell(outputs=[nbformat.v4.new_output("display_data", data)])
    state = {"application/vnd.jupyter.widget-state+json": {"version_major": 2, "version_minor": 0}}
    state["application/vnd.jupyter.widget-state+json"]["state"] = {"abc": {"model_name": "Box"}}
    metadata = {"widgets": state, "papermill": {"duration": 1.0}}
    live = nbformat.v4.new_notebook(cells=[cell], metadata=metadata)
    (page,) = [Page("10_live", notebook("10_live", ""), {"dataset": "shapes"}, [])]
    pages._write_pages(settings, [pages.Shown(page, "done", "", live)])
    assert "iVBORw0KGgo=" in (settings.report / "10_live.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("what", ["folder", "file"])
def test_a_folder_that_holds_something_else_is_left_alone(notebook, settings, what):
    notebook("10_one", "")
    if what == "folder":
        settings.report.mkdir()
        (settings.report / "thesis.txt").write_text("mine")
    else:
        settings.report.write_text("mine")
    with pytest.raises(ValueError, match="make report has not made"):
        pages.report(settings)
    assert not list(settings.report.parent.glob("report/*.html"))


def test_a_missing_data_set_leaves_out_its_pages(notebook, settings, capsys):
    notebook("04_celeba", "")
    notebook("05_posterior_collapse", "")
    lacking = replace(settings, faces="celeba")
    assert pages.report(lacking) == 0
    assert [state for state, _ in states(lacking)] == ["skipped", "done"]
    assert "img_align_celeba" in states(lacking)[0][1]
    assert capsys.readouterr().err.startswith("without celeba: ")
    assert pages.report(replace(settings, dataset="celeba")) == 1
    assert [state for state, _ in states(settings)] == ["done", "skipped"]
    with pytest.raises(FileNotFoundError, match="nowhere"):
        pages.report(replace(settings, faces="/nowhere"))


def test_a_failed_training_is_said_and_not_tried_again(notebook, settings, monkeypatch):
    notebook("04_celeba", "")
    notebook("05_posterior_collapse", "")

    def engine_that_fails(tasks, settings):
        faces = [
            engine.Outcome(task, error="diverged") for task in tasks if task.dataset == "faces"
        ]
        return faces + in_turn([task for task in tasks if task.dataset != "faces"], settings)

    monkeypatch.setattr(engine, "run_all", engine_that_fails)
    assert pages.report(settings) == 1
    assert states(settings)[0] == ("failed", "failed: CVAE p2 on built-in faces, seed 0: diverged")
    assert states(settings)[1][0] == "done"


def test_the_study_says_first_what_it_takes_and_writes_the_table(notebook, settings, capsys):
    notebook("04_celeba", "")
    seeds = replace(settings, seeds=(0, 1))
    assert pages.report(seeds, all_seeds=True) == 0
    said = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"3 runs, 3 of them to be trained: \d+ s, 2 at a time", said[0])
    assert len((settings.report / "results.csv").read_text().splitlines()) == 4
    assert pages.report(seeds, all_seeds=True) == 0
    assert "3 runs, 0 of them to be trained: nothing to train" in capsys.readouterr().out


@pytest.fixture
def process(tmp_path):
    """A function that starts `python -m study report` in a clone with one notebook."""
    clone = tmp_path / "a b" / PLACE
    for name in ("study", "vae_core"):
        shutil.copytree(PROJECT / name, clone / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / "pyproject.toml", clone)
    (clone / "notebooks").mkdir()

    def start(code, **environment):
        path = clone / "notebooks" / "10_one.py"
        path.write_text(HEADER.format(name="ä") + code, encoding="utf-8")
        environment |= {"IPYTHONDIR": str(PROJECT / ".ipython")}
        command = [sys.executable, "-m", "study", "report"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return clone, subprocess.Popen(command, cwd=clone, env=os.environ | environment, **pipes)

    return start


def test_output_that_is_not_utf8(process):
    locale = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    clone, running = process("print('σ ± μ')", **locale)
    said, _ = running.communicate(timeout=100)
    assert running.returncode == 0, said
    assert "σ ± μ" in (clone / "report" / "10_one.html").read_text(encoding="utf-8")


def test_an_interruption_is_one_line_and_leaves_no_kernel(process):
    clone, running = process("import time\nopen('begun', 'w').close()\ntime.sleep(600)")
    begun = clone / "notebooks" / "begun"
    while not begun.exists() and running.poll() is None:
        time.sleep(0.1)
    kernels = psutil.Process(running.pid).children(recursive=True)
    running.send_signal(signal.SIGINT)
    said, _ = running.communicate(timeout=10)
    assert running.returncode == 130
    assert said.decode().splitlines()[-1].startswith("stopped; the same command goes on")
    assert "Traceback" not in said.decode() and len(said.splitlines()) == 1
    assert kernels and not psutil.wait_procs(kernels, timeout=10)[1]
