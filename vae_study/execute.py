"""Notebooks are executed with papermill, several at a time, and only where something changed."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jupytext
import matplotlib
import nbformat
import papermill
from dask.system import CPU_COUNT
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError
from rich.console import Console

from vae_core.storage import atomic_write, single_line
from vae_study.page_list import Page
from vae_study.progress import ProgressDisplay
from vae_study.settings import Settings

KERNEL = {"name": "python3", "language": "python", "display_name": "Python 3"}
# One thread a kernel; and pages must not depend on the plotting configuration of the user.
KERNEL_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TQDM_DISABLE": "1",
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    "MATPLOTLIBRC": str(Path(matplotlib.get_data_path(), "matplotlibrc")),
}


@dataclass(frozen=True)
class PageOutcome:
    """What became of a page."""

    page: Page
    state: str  # "done", "failed" or "skipped"
    reason: str = ""  # why it failed or was skipped
    notebook: NotebookNode | None = None  # executed


@dataclass(frozen=True)
class Execution:
    """A page that has to be executed."""

    page: Page
    source: bytes  # of the notebook, as it was when `made_of` was computed
    made_of: str  # a hash over everything that the page depends on


def read_current(page: Page, made_of: str, report: Path) -> NotebookNode | None:
    """Return the executed notebook of a page if it was made of the same; else None."""
    try:
        notebook = nbformat.read(report / f"{page.name}.ipynb", as_version=4)
        return notebook if notebook.metadata["made_of"] == made_of else None
    except Exception:  # missing or damaged in any way: it is executed again
        return None


def execute_all(executions: list[Execution], settings: Settings) -> Iterator[PageOutcome]:
    """Execute notebooks, several at a time; yield and print what became of each."""
    os.environ |= KERNEL_ENVIRONMENT
    pool = ThreadPoolExecutor(settings.workers or CPU_COUNT)
    labels = [execution.page.name for execution in executions]
    with ProgressDisplay(labels, Console()) as display:
        try:
            futures = {}
            for index, execution in enumerate(executions):
                update = partial(display.update, index)
                future = pool.submit(execute, execution, settings.report, update)
                futures[future] = index
            for future in as_completed(futures):
                outcome = future.result()
                result = f"{outcome.state} {outcome.reason}".rstrip()
                display.finished(futures[future], result)
                yield outcome
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def execute(execution: Execution, report: Path, update: Callable[[str], None]) -> PageOutcome:
    """Execute a notebook with the page's parameters; return what became of it.

    `<name>.ipynb` appears only if every cell ran. Until then the notebook is
    `<name>.failed.ipynb`; if that is the end, `<name>.log` says why. A page whose data set is
    missing is skipped. `update` is called with a few words before each cell.
    """
    page = execution.page
    executed = report / f"{page.name}.ipynb"
    failed = report / f"{page.name}.failed.ipynb"
    log = report / f"{page.name}.log"
    state, trace = "failed", ""
    try:
        notebook = run_cells(execution, failed, update)
        check_outputs(notebook)
        failed.replace(executed)
        log.unlink(missing_ok=True)
        return PageOutcome(page, "done", notebook=notebook)
    except PapermillExecutionError as error:
        if error.ename == "DatasetMissing":
            state = "skipped"
        reason = f"cell {error.exec_count}: {error.ename}: {single_line(error.evalue)}"
        trace = str(error)
    except DeadKernelError:
        reason = "the kernel died (out of memory, perhaps)"
    except Exception as error:  # jupytext, YAML and papermill have no error in common
        reason = single_line(error)
    executed.unlink(missing_ok=True)
    atomic_write(log, trace or reason)
    return PageOutcome(page, state, reason)


def run_cells(execution: Execution, path: Path, update: Callable[[str], None]) -> NotebookNode:
    """Write the notebook to `path` and execute it there; return it with its outputs."""
    page = execution.page
    notebook = jupytext.reads(execution.source.decode(), fmt="py:percent")
    notebook.metadata |= {"kernelspec": KERNEL, "made_of": execution.made_of}
    nbformat.write(notebook, path)
    papermill_path = str(path).replace("{", "{{").replace("}", "}}")  # it formats its paths
    missing = sorted(page.parameters.keys() - papermill.inspect_notebook(papermill_path).keys())
    if missing:
        raise ValueError(f"its cell tagged 'parameters' lacks {missing[0]!r}; write it there")
    cells = len(notebook.cells) + 1  # papermill adds one with the parameters
    return papermill.execute_notebook(
        papermill_path,
        papermill_path,
        page.parameters,
        progress_bar=False,
        resources={"metadata": {"path": str(page.notebook.parent)}},
        on_cell_start=lambda cell, cell_index: update(f"cell {cell_index + 1} of {cells}"),
    )


def check_outputs(notebook: NotebookNode) -> None:
    """Raise ValueError where a cell ended the notebook, or its figures were not drawn."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    if any(output.output_type == "error" for output in outputs):  # papermill allows sys.exit()
        raise ValueError("a cell ended the notebook")
    draws = any("plt.show()" in cell.source for cell in notebook.cells)
    has_figure = any("image/png" in output.get("data", {}) for output in outputs)
    if draws and not has_figure:
        raise ValueError("no figure was drawn; is another matplotlib backend chosen in a cell?")
