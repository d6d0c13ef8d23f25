"""The pages of the report: which notebook is executed with which parameters, on which runs."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from vae_core.data import dataset_info
from vae_core.storage import PROJECT
from vae_study.settings import Settings
from vae_study.tasks import Task, collapse_tasks, comparison_tasks, face_tasks

NOTEBOOKS = PROJECT / "notebooks"


@dataclass(frozen=True)
class Page:
    """A notebook, the parameters that it is executed with, and the runs that it needs."""

    name: str
    notebook: Path
    parameters: dict[str, Any]
    tasks: list[Task]


class Content(NamedTuple):
    """What one page of a notebook shows."""

    params: str  # names of parameter sets
    dataset: str  # name or path of a data set; "published" for the published runs on photographs
    tasks: list[Task] = []  # noqa: RUF012
    suffix: str = ""  # of the page's name, where a notebook has several pages
    more_parameters: dict[str, Any] = {}  # noqa: RUF012


# Notebooks whose pages always show published runs, which are trained until they converge.
STORED = {
    "00_why_variational": Content("plane", "shapes"),
    "06_fair_comparison": Content("p2", "published"),
    "07_what_a_convolution_knows": Content("p2", "published"),
    "08_rate_distortion": Content("p2", "published"),
    "09_holes_and_meaning": Content("p2", "shapes"),
}
# Notebooks whose pages show published runs unless something else is asked for.
STORED_BY_DEFAULT = {
    "04_celeba": Content("p2", "published"),
    "05_posterior_collapse": Content("p2", "shapes"),
    "10_explorer": Content("p2", "published"),
}


def comparison_contents(settings: Settings) -> list[Content]:
    """Return a page for each parameter set, with the models that are compared."""
    contents = []
    for name in settings.sets:
        tasks = comparison_tasks(settings, name, settings.seed)
        contents.append(Content(name, settings.dataset, tasks, suffix=f"-{name}"))
    return contents


def tuning_contents(settings: Settings) -> list[Content]:
    """Return one page with all parameter sets and seeds."""
    tasks = []
    for seed in settings.seeds:
        for name in settings.sets:
            tasks += comparison_tasks(settings, name, seed)
    seeds = " ".join(map(str, settings.seeds))
    more = {"seeds": seeds}
    return [Content(" ".join(settings.sets), settings.dataset, tasks, more_parameters=more)]


def face_contents(settings: Settings) -> list[Content]:
    """Return the page about faces."""
    return [Content("p2", settings.faces, face_tasks(settings))]


def collapse_contents(settings: Settings) -> list[Content]:
    """Return the page about posterior collapse."""
    return [Content("p2", settings.dataset, collapse_tasks(settings))]


def other_contents(settings: Settings) -> list[Content]:
    """Return the page of a notebook that is not listed here: the first set, no runs."""
    return [Content(settings.sets[0], settings.dataset)]


CONTENTS: dict[str, Callable[[Settings], list[Content]]] = {
    "01_fc_vs_cvae": comparison_contents,
    "02_tuning": tuning_contents,
    "03_interpolation": comparison_contents,
    "04_celeba": face_contents,
    "05_posterior_collapse": collapse_contents,
}


def report_pages(settings: Settings) -> list[Page]:
    """List the report's pages in their order; every notebook in `notebooks/` has at least one.

    Raises FileNotFoundError where there are no notebooks.
    """
    stored = dict(STORED)
    if not settings.trains_all_pages:
        stored |= STORED_BY_DEFAULT
    pages = []
    for notebook in sorted(NOTEBOOKS.glob("[0-9]*.py")):
        name = notebook.stem
        if name in stored:
            content = stored[name]
            parameters = {"params": content.params, "dataset": content.dataset}
            pages.append(Page(name, notebook, parameters, []))
            continue
        for content in CONTENTS.get(name, other_contents)(settings):
            parameters = page_parameters(content, settings)
            pages.append(Page(name + content.suffix, notebook, parameters, content.tasks))
    if not pages:
        raise FileNotFoundError(f"{NOTEBOOKS} has no notebooks; the report needs a clone")
    return pages


def page_parameters(content: Content, settings: Settings) -> dict[str, Any]:
    """Return the parameters with which a notebook is executed."""
    return {
        "params": content.params,
        "dataset": content.dataset,
        "seed": settings.seed,
        "max_epochs": settings.max_epochs or dataset_info(content.dataset).epochs,
        "limit": settings.limit,
        "size": settings.size,
        "precision": settings.precision,
        **content.more_parameters,
    }


def page_tasks(pages: list[Page], settings: Settings) -> list[Task]:
    """List the runs that pages need, each once, those of the first seed first."""
    tasks = dict.fromkeys(task for page in pages for task in page.tasks)
    return sorted(tasks, key=lambda task: task.seed != settings.seed)
