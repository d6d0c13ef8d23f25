"""`make report` and `make study`: train what is missing, execute the notebooks, write the pages."""

from collections.abc import Iterable
from functools import cache, partial
from pathlib import Path

from dask.base import tokenize
from rich.console import Console

import vae_core
from vae_core.data import DatasetMissing
from vae_core.explorer.page import PAGE, write_explorer_page
from vae_core.runs.checkpoints import RUN
from vae_core.runs.results import write_results
from vae_core.storage import PROJECT, atomic_write, print_error, single_line
from vae_study import engine, page_list
from vae_study.execute import Execution, PageOutcome, execute_all, read_current
from vae_study.explorer_runs import explorer_runs
from vae_study.html import write_pages
from vae_study.page_list import Page, page_tasks
from vae_study.settings import Settings
from vae_study.tasks import Task, announce, back_up_runs

MARK = ".made-by-make-report"


def report(settings: Settings, all_seeds: bool = False) -> int:
    """Train what is missing, execute the notebooks, write the pages; return the exit code.

    With `all_seeds`, as `make study` has it, the runs of every seed are gathered in `results.csv`.
    The exit code is 1 where a page failed or the main data set is missing.
    """
    claim_folder(settings.report)
    pages = page_list.report_pages(settings)
    missing = missing_datasets(page_tasks(pages, settings))
    if all_seeds and settings.dataset in missing:
        return 1
    tasks = [task for task in page_tasks(pages, settings) if task.dataset not in missing]
    if settings.retrain:
        back_up_runs(tasks, settings.checkpoints)
    outcomes = train_missing(tasks, settings, all_seeds)
    if all_seeds:
        write_table(outcomes, settings.report / "results.csv")
    errors = {outcome.task: outcome.error for outcome in outcomes if outcome.error}
    page_outcomes = make_pages(pages, settings, missing, errors)
    strip = make_explorer(page_outcomes, settings)
    write_pages(settings.report, page_outcomes, strip)
    print(f"the report is {settings.report / 'index.html'}")
    any_failed = any(outcome.state == "failed" for outcome in page_outcomes)
    return int(settings.dataset in missing or any_failed)


def claim_folder(folder: Path) -> None:
    """Make a folder the report's own; raise ValueError where something else is in it."""
    if (folder / MARK).exists():
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(
            f"{folder} holds something that make report has not made; name another folder with "
            "REPORT=, or move what is there"
        )
    atomic_write(folder / MARK, "make clean removes the folder report/ while this file is in it\n")


def missing_datasets(tasks: Iterable[Task]) -> dict[str, str]:
    """Load the data sets of tasks; return what to do about those that are missing, by name."""
    missing: dict[str, str] = {}
    with Console().status("loading the data sets"):
        for task in tasks:
            if task.dataset in missing:
                continue
            try:
                _ = task.arguments
            except DatasetMissing as error:
                missing[task.dataset] = single_line(error)
                print_error(f"without {task.dataset}: {error}")
    return missing


def train_missing(tasks: list[Task], settings: Settings, all_seeds: bool) -> list[engine.Outcome]:
    """Train the runs that do not exist; return the outcomes, with `all_seeds` those of all runs."""
    untrained = [task for task in tasks if task.finished(settings.checkpoints) is None]
    if all_seeds:
        announce(tasks, untrained, settings)
    requested = tasks if all_seeds else untrained
    return engine.run_all(requested, settings) if requested else []


def write_table(outcomes: list[engine.Outcome], path: Path) -> None:
    """Write the results of the runs that ended well."""
    write_results(path, [outcome.row for outcome in outcomes if outcome.row])
    print(f"the results are in {path}", flush=True)


def make_pages(
    pages: list[Page], settings: Settings, missing: dict[str, str], errors: dict[Task, str]
) -> list[PageOutcome]:
    """Execute the pages that are out of date; return what became of all, in their order.

    Args:
        missing: what to do about a missing data set, by its name.
        errors: why a run could not be trained.
    """
    code = code_and_tables(settings)
    read_run_file = cache(partial(run_file, settings=settings))  # several pages show the same run
    outcomes: dict[str, PageOutcome] = {}
    executions = []
    for page in pages:
        failed = [f"{task.label}: {errors[task]}" for task in page.tasks if task in errors]
        if page.parameters["dataset"] in missing:
            reason = missing[page.parameters["dataset"]]
            outcomes[page.name] = PageOutcome(page, "skipped", reason)
        elif failed:
            outcomes[page.name] = PageOutcome(page, "failed", failed[0])
        else:
            # The source is read before the execution: a later change makes the page out of date.
            source = page.notebook.read_bytes()
            runs = [read_run_file(task) for task in page.tasks]
            made_of = tokenize(source, page.parameters, code, runs)
            notebook = read_current(page, made_of, settings.report)
            if notebook is None:
                executions.append(Execution(page, source, made_of))
            else:
                outcomes[page.name] = PageOutcome(page, "done", notebook=notebook)
    for outcome in execute_all(executions, settings):
        outcomes[outcome.page.name] = outcome
    return [outcomes[page.name] for page in pages]


def make_explorer(outcomes: list[PageOutcome], settings: Settings) -> str:
    """Write the explorer's page of published runs and of those of executed pages.

    Returns the base64 PNG of the strip that leads to the page; "" where there are no runs.
    """
    tasks: list[Task] = []
    for outcome in outcomes:
        if outcome.notebook is not None:
            tasks += outcome.page.tasks
    with Console().status(f"building {PAGE}"):
        return write_explorer_page(settings.report / PAGE, explorer_runs(settings, tasks))


def code_and_tables(settings: Settings) -> list[bytes]:
    """Return the content of the files that every page may depend on."""
    files = [*PROJECT.glob("figures/*.csv")]
    for package in (Path(vae_core.__file__).parent, Path(__file__).parent):
        files += package.rglob("*.py")
    files += settings.checkpoints.glob(f"published/*/*/{RUN}")
    return [path.read_bytes() for path in sorted(files)]


def run_file(task: Task, settings: Settings) -> bytes:
    """Return the content of the run.json of a finished run; nothing where it is not finished."""
    run = task.finished(settings.checkpoints)
    return b"" if run is None else (run.folder / RUN).read_bytes()
