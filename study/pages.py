"""Notebooks are executed and become pages that need no network; `index.html` leads to them."""

import base64
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

import jupytext
import nbformat
import papermill
import torch
from dask.base import tokenize
from dask.system import CPU_COUNT
from jinja2 import Environment, PackageLoader, select_autoescape
from latex2mathml.converter import convert
from markupsafe import Markup
from nbclient.exceptions import DeadKernelError
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from papermill.exceptions import PapermillExecutionError
from rich.console import Console
from traitlets.config import Config

import vae_core
from study import engine, runs
from study.board import Board
from study.explorer import PAGE, write_explorer
from study.runs import Page, Settings, Task
from vae_core.checkpoints import RUN
from vae_core.data import DatasetMissing
from vae_core.storage import PROJECT, in_one_line, say, write
from vae_core.tables import write_results

MARK = ".made-by-make-report"
KERNEL = {"name": "python3", "language": "python", "display_name": "Python 3"}
ANSWER = re.compile(r"<!-- answer:.*?-->(.*?)<!-- end of answer -->\s*!\[(.*?)\]\((.*?)\)", re.S)
# Maths stands between dollars, but not in code.
MATHS = re.compile(r"(`+).+?\1|\$\$(?P<block>.+?)\$\$|\$(?P<inline>[^$\n]+?)\$", re.DOTALL)


@dataclass(frozen=True)
class Shown:
    """What became of a page: "done", "failed" or "skipped", why, and the executed notebook."""

    page: Page
    state: str
    reason: str = ""
    notebook: nbformat.NotebookNode | None = None

    @property
    def question(self) -> Markup:
        """The notebook's first heading, or its file's name, and which set where each has a page."""
        source = self.page.notebook.read_text(encoding="utf-8", errors="replace")
        heading = re.search(r"^# # (.+)$", source, re.MULTILINE)
        of = self.page.name[len(self.page.notebook.stem) :].strip("-")
        text = heading[1] + (f" – {of}" if of else "") if heading else Markup.escape(self.page.name)
        return Markup(_markdown(text).strip().removeprefix("<p>").removesuffix("</p>"))


def claim(report: Path) -> None:
    """Make a folder the report's own; raises ValueError where something else is in it."""
    if not (report / MARK).exists():
        if report.exists() and (not report.is_dir() or any(report.iterdir())):
            advice = "name another folder with REPORT=, or move what is there"
            raise ValueError(f"{report} holds something that make report has not made; {advice}")
        write(report / MARK, "make clean removes the folder report/ while this file is in it\n")


def report(settings: Settings, all_seeds: bool = False) -> int:
    """Train what is not there yet, execute the notebooks, write the pages; return the exit code."""
    claim(settings.report)
    tasks, absent = [], {}
    with Console().status("loading the data sets"):
        for task in runs.study_tasks(settings):
            try:
                tasks += [task] if task.dataset not in absent and task.arguments else []
            except DatasetMissing as error:
                absent[task.dataset] = in_one_line(error)
                say(f"without {task.dataset}: {error}")
    if all_seeds and settings.dataset in absent:
        return 1
    if settings.retrain:
        runs.begin_anew(tasks, settings.checkpoints)
    records = {task: _record(task, settings) for task in tasks}
    waiting = [task for task in tasks if not records[task]]
    if all_seeds:
        runs.announce(tasks, waiting, settings)
    asked = tasks if all_seeds else waiting
    outcomes = engine.run_all(asked, settings) if asked else []
    records |= {task: _record(task, settings) for task in waiting}
    if all_seeds:
        table = settings.report / "results.csv"
        write_results(table, [outcome.row for outcome in outcomes if outcome.row])
        print(f"the results are in {table}", flush=True)
    errors = {outcome.task: outcome.error for outcome in outcomes if outcome.error}
    shown = _pages(settings, absent, errors, records)
    runs.end_anew(settings.checkpoints)
    print(f"the report is {settings.report / 'index.html'}")
    return int(settings.dataset in absent or any(one.state == "failed" for one in shown))


def _record(task: Task, settings: Settings) -> bytes:
    run = task.finished(settings.checkpoints)
    return (run.folder / RUN).read_bytes() if run else b""


def _pages(settings: Settings, absent: dict, errors: dict, records: dict) -> list[Shown]:
    """Execute what is not up to date, and write all pages.

    Given are what to do about data sets by name, why tasks failed, and their `run.json`.
    """
    sources = [*Path(vae_core.__file__).parent.rglob("*.py"), *PROJECT.glob("figures/*.csv")]
    sources += settings.checkpoints.glob(f"published/*/*/{RUN}")
    code = [path.read_bytes() for path in sorted(sources)]
    shown, waiting = {}, []
    for page in runs.pages(settings):
        broken = [f"{task.label}: {errors[task]}" for task in page.tasks if task in errors]
        if page.parameters["dataset"] in absent:
            shown[page.name] = Shown(page, "skipped", absent[page.parameters["dataset"]])
        elif broken:
            shown[page.name] = Shown(page, "failed", broken[0])
        else:
            # Taken before the execution: what changes meanwhile makes the page out of date.
            source, own = page.notebook.read_bytes(), [records[task] for task in page.tasks]
            made_of = tokenize(source, page.parameters, code, own)
            try:
                notebook = nbformat.read(settings.report / f"{page.name}.ipynb", as_version=4)
                current = notebook.metadata["made_of"] == made_of
            except Exception:  # missing or damaged, the answer is to execute it again
                current = False
            shown[page.name] = Shown(page, "done", "", notebook) if current else None
            waiting += [] if current else [(page, source, made_of)]
    shown |= {one.page.name: one for one in _execute_all(waiting, settings)}
    _write_pages(settings, list(shown.values()))
    return list(shown.values())


def _execute_all(waiting: list[tuple], settings: Settings) -> Iterator[Shown]:
    """Execute notebooks, each in a kernel of one thread; yield and say what became of them."""
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    pool = ThreadPoolExecutor(settings.workers or CPU_COUNT)
    with Board([page.name for page, *_ in waiting], Console()) as board:
        try:
            places = {
                pool.submit(execute, *one, settings.report, partial(board.show, place)): place
                for place, one in enumerate(waiting)
            }
            for future in as_completed(places):
                one = future.result()
                board.finish(places[future], f"{one.state} {one.reason}".rstrip())
                yield one
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def execute(page: Page, source: bytes, made_of: str, report: Path, show: Callable) -> Shown:
    """Execute a notebook with the page's parameters; say what became of it.

    `<name>.ipynb` appears only when every cell ran; until then it is `<name>.failed.ipynb`, and
    where that is the end, `<name>.log` says why. A page whose data set is missing counts as
    skipped. `show` is told each cell before it runs.
    """
    endings = (".ipynb", ".failed.ipynb", ".log")
    executed, failed, log = (report / f"{page.name}{ending}" for ending in endings)
    place = str(failed).replace("{", "{{").replace("}", "}}")  # papermill formats its paths
    state, trace = "failed", ""
    try:
        notebook = jupytext.reads(source.decode(), fmt="py:percent")
        notebook.metadata |= {"kernelspec": KERNEL, "made_of": made_of}
        nbformat.write(notebook, failed)
        known, of = papermill.inspect_notebook(place), len(notebook.cells) + 1
        if unknown := sorted(page.parameters.keys() - known.keys()):
            raise ValueError(f"its cell tagged 'parameters' lacks {unknown[0]!r}; write it there")
        notebook = papermill.execute_notebook(
            place,
            place,
            page.parameters,
            progress_bar=False,
            resources={"metadata": {"path": str(page.notebook.parent)}},
            on_cell_start=lambda cell, cell_index: show(f"cell {cell_index + 1} of {of}"),
        )
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
        if any(output.output_type == "error" for output in outputs):  # papermill allows sys.exit()
            raise ValueError("a cell ended the notebook")
        failed.replace(executed)
        log.unlink(missing_ok=True)
        return Shown(page, "done", "", notebook)
    except PapermillExecutionError as error:
        state = "skipped" if error.ename == "DatasetMissing" else "failed"
        reason = f"cell {error.exec_count}: {error.ename}: {in_one_line(error.evalue)}"
        trace = str(error)
    except DeadKernelError:
        reason = "the kernel died (out of memory, perhaps)"
    except Exception as error:  # jupytext, YAML and papermill have no errors in common
        reason = in_one_line(error)
    executed.unlink(missing_ok=True)
    write(log, trace or reason)
    return Shown(page, state, reason)


def _write_pages(settings: Settings, shown: list[Shown]) -> None:
    report, done = settings.report, [one for one in shown if one.notebook]
    with Console().status(f"building {PAGE}"):
        tasks = [task for one in done for task in one.page.tasks]
        strip = write_explorer(settings, tasks, TEMPLATES)
    page, index = map(TEMPLATES.get_template, ("page.html.j2", "index.html.j2"))
    for one in shown:
        path = report / f"{one.page.name}.html"
        if one.notebook:
            # With a widget's state, nbconvert would show that instead of the image beside it.
            one.notebook.metadata.pop("widgets", None)
            body, _ = EXPORTER.from_notebook_node(one.notebook)
            write(path, page.render(one=one, done=done, body=body))
        else:
            path.unlink(missing_ok=True)
    versions = f"vae_core {vae_core.__version__}, torch {torch.__version__}"
    given = {"strip": strip, "versions": versions, "now": datetime.now(), **_answer()}
    write(report / "index.html", index.render(shown=shown, **given))


def _answer() -> dict[str, str]:
    """Return the README's answer, and the figure below it with its text; nothing without them."""
    readme = PROJECT / "README.md"
    found = ANSWER.search(readme.read_text(encoding="utf-8")) if readme.exists() else None
    if not (found and (PROJECT / found[3]).exists()):
        return {}
    figure = base64.b64encode((PROJECT / found[3]).read_bytes()).decode()
    return {"answer": found[1].strip(), "caption": found[2], "figure": figure}


def _mathml(found: re.Match) -> str:
    formula, display = found["block"] or found["inline"], "block" if found["block"] else "inline"
    try:
        maths = convert(formula, display=display) if formula else found[0]
        # What scrolls has to be reached by the keyboard.
        return maths.replace("<math ", '<math tabindex="0" ' if found["block"] else "<math ", 1)
    except Exception:  # latex2mathml promises none; what it cannot set stays as it was written
        return found[0]


def _markdown(text: str) -> str:
    # Anchors would make headings pass through an XML parser, which breaks the maths in them.
    renderer = IPythonRenderer(escape=False, exclude_anchor_links=True)
    return MarkdownWithMath(renderer=renderer).render(MATHS.sub(_mathml, text))


TEMPLATES = Environment(
    loader=PackageLoader("study"), autoescape=select_autoescape(["html.j2"]), trim_blocks=True
)
TEMPLATES.filters["markdown"] = _markdown
# A page shows the parameters that were used, not those that stand in the notebook.
EXPORTER = HTMLExporter(
    raw_template=TEMPLATES.loader.get_source(TEMPLATES, "notebook.html.j2")[0],
    filters={"markdown2html": _markdown},
    config=Config(TagRemovePreprocessor={"enabled": True, "remove_cell_tags": ["parameters"]}),
)
