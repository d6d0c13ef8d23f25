"""From the study's results to what the repository shows: weights, figures, the README's numbers."""

import copy
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import torch
from IPython.core.pylabtools import print_figure
from matplotlib.figure import Figure
from torch.nn.functional import adaptive_avg_pool2d

from study import answer
from study.pages import TEMPLATES
from study.runs import Settings, Task, study_tasks
from vae_core import __version__, figures, tables
from vae_core.checkpoints import RUN, Run, load_run, write_run
from vae_core.evaluation import class_accuracy, evaluate, importance_weighted_bound, operations
from vae_core.experiment import set_aside, training_code
from vae_core.latent import posterior_draws, posterior_means
from vae_core.models import MODELS
from vae_core.storage import PROJECT, write

FIGURES = PROJECT / "figures"
README = PROJECT / "README.md"
RESULTS, ANSWER = "results.csv", answer.PUBLISHED.name
BEGIN, END = "<!-- {}: make publish writes this -->", "<!-- end of {} -->"
ROUNDING_LIMIT = 0.05  # of the test loss, in nats per image
BOUNDED = 500  # test images of which the importance-weighted bound is taken, and that of one draw


def publish(settings: Settings) -> None:
    """Bring weights, figures, results and the README up to date: all of them, or nothing.

    With `settings.results`, the table of a study or of an answer with these settings, the runs of
    its first seed, or those that are shown, are published; without it, the published ones are
    shown again. Raises ValueError or FileNotFoundError where the two do not fit, a run is missing,
    or rounding loses too much.
    """
    published, kind, listed = settings.checkpoints / "published", "", []
    if settings.results:
        given = tables.read_results(settings.results)
        if (given["schedule"] == "cosine").all():
            kind, listed = ANSWER, answer.tasks(settings, answer.SHOWN)
        else:
            kind = RESULTS
            listed = [task for task in study_tasks(settings) if task.seed == settings.seed]
    shown = {
        name: given if name == kind else tables.read_results(FIGURES / name)
        for name in (RESULTS, ANSWER)
    }
    with TemporaryDirectory(prefix=".publishing-", dir=settings.checkpoints) as folder:
        aside = Path(folder)
        if published.exists():
            shutil.copytree(published, aside / "published")
        for task in listed:
            _publish_run(task, settings, aside / "published", given)
        section = results_section(*shown.values())
        readme = with_results(README.read_text(encoding="utf-8"), section)
        drawn = dict(draw(aside, set(shown[RESULTS]["dataset"])))
        drawn["ladder.png"] = draw_ladder(*shown.values())
        images = {name: print_figure(figure, "retina") for name, figure in drawn.items()}
        if kind:
            if published.exists():
                print(f"what was published is kept as {set_aside(published)}")
            (aside / "published").rename(published)
            tables.write_results(FIGURES / kind, given.to_dict("records"))
        for name, image in images.items():
            write(FIGURES / name, image)
        write(README, readme)


def _publish_run(task: Task, settings: Settings, folder: Path, results: pd.DataFrame) -> None:
    """Write a run with rounded weights below `folder`, unless it is a published one."""
    run = task.finished(settings.checkpoints)
    if run is None:
        raise FileNotFoundError(f"{task.label} is not trained; make study with these settings")
    published = run.record["published"] or _write_rounded(task, run, folder)
    rows = tables.of_run(results, run.config, run.dataset["folder"])
    if not rows.any():
        raise ValueError(f"{settings.results} has no {task.label}; give the settings of its study")
    for name in ("rounding", "bound"):
        results.loc[rows, name] = published.get(name)


def _write_rounded(task: Task, run: Run, folder: Path) -> dict[str, Any]:
    config, data = run.config, task.arguments["dataset"]
    for precision in (torch.bfloat16, torch.float16):  # the former takes less room in git
        model = copy.deepcopy(run.model).to(precision).float()
        rounded = evaluate(model, data.test, beta=config.beta, reduction=config.reduction)
        change = rounded["loss"] - run.summary["test"]["loss"]
        if abs(change) <= ROUNDING_LIMIT:
            break
    else:
        raise ValueError(f"rounded weights change the test loss of {task.label} by {change:.3f}")
    published = {"version": __version__, "date": f"{date.today():%Y-%m-%d}"}
    published |= {"weights": str(precision).removeprefix("torch."), "rounding": round(change, 5)}
    some = data.test[:BOUNDED]
    published["code"] = training_code(type(model))
    published["bound"] = round(importance_weighted_bound(model, some).mean().item(), 3)
    published["bound_one_draw"] = round(evaluate(model, some)["loss"], 3)
    views = {
        "mu": partial(posterior_means, model),
        "draws": partial(posterior_draws, model),
        "pixels": lambda images: adaptive_avg_pool2d(images / 255, min(16, data.size)).flatten(1),
    }
    known = {of: class_accuracy(view, data) for of, view in views.items()}
    published |= {} if None in known.values() else {"class_accuracy": known}
    place = folder / run.dataset["name"] / run.folder.name
    shutil.rmtree(place, ignore_errors=True)
    record = {**run.record, "published": published}
    write_run(replace(run, model=model, record=record, folder=place), precision)
    return published


def results_section(results: pd.DataFrame, answers: pd.DataFrame) -> str:
    """Say in Markdown what the results are, and the answers at equal budgets (`study.answer`).

    Raises ValueError where one of them lacks runs that the text is about.
    """
    results = results[results["schedule"] == "constant"]
    balanced = tables.with_the_studys_loss(results)
    fc = balanced[balanced["model"] == "fc"]
    if fc.empty or "conv" not in set(balanced["model"]):
        raise ValueError("the results lack one of the two models; take those of make study")
    studied = balanced[balanced["params"].isin(fc["params"])]
    of_both = studied["dataset"] == fc["dataset"].iloc[0]
    published = pd.DataFrame(tables.PUBLISHED, ["stop", "loss"]).T
    return TEMPLATES.get_template("results.md.j2").render(
        results=results,
        trained=results[[not hasattr(MODELS[name], "fit") for name in results["model"]]],
        compared=studied[of_both],
        faces=studied[~of_both],
        published=published.rename_axis(["params", "model"]),
        answers=answers,
        **_compared(tables.tuned(answers)),
        tables=tables,
        models=MODELS,
    )


def _compared(chosen: pd.DataFrame) -> dict[str, Any]:
    """Return what the models cost, the equal budgets, and test losses by model.

    They are those of images in order and permuted, after four times as long, and of few images;
    `learned` are training losses after the longest trainings.
    """
    by_place = tables.by_permutation(chosen).reindex(columns=[0.0, 1.0])
    whole, share = tables.as_it_is(chosen), tables.shares(chosen, "fraction")
    late = whole[whole["epochs"] == 4 * whole.groupby("model")["epochs"].transform("min")]
    some = {"late": late, "few": chosen[share == share.min()]}
    losses = {name: own.groupby("model")["test_loss"].agg(list) for name, own in some.items()}
    losses |= {name: by_place[share].dropna() for name, share in (("ordered", 0), ("permuted", 1))}
    for name, own in losses.items():
        needed = ("fc", "local", "conv") if name in some else tables.LADDER
        if lacking := [model for model in needed if model not in own]:
            raise ValueError(f"the answer lacks {lacking[0]} ({name}); take that of make answer")
    latents = chosen["latent_dim"].iloc[0]
    both = {name: MODELS[name](latents, (3, 32, 32)) for name in tables.BOTH}
    cost = {name: operations(model) / 1e9 for name, model in both.items()}
    sizes = {name: sum(w.numel() for w in model.parameters()) for name, model in both.items()}
    weights = {name: f"{size / 1e6:.1f}" for name, size in sizes.items()}
    budgets = tables.at_equal_budgets(whole, cost, "operations per training image, 10⁹")
    if budgets.empty:
        raise ValueError("the answer lacks budgets that are equal for both models; see make answer")
    most = whole[whole["epochs"] == whole.groupby("model")["epochs"].transform("max")]
    losses["learned"] = most.groupby("model")["train_loss"].agg(list)
    return {"budgets": budgets, "weights": weights, "fewest": share.min(), **losses}


def with_results(readme: str, section: str) -> str:
    """Return the README's text with the answer, the first paragraph, and the results after it."""
    for name, text in zip(("answer", "results"), section.strip().split("\n\n", 1), strict=True):
        before, begin, rest = readme.partition(BEGIN.format(name))
        _, end, after = rest.partition(END.format(name))
        if not begin or not end:
            raise ValueError(f"the README lacks the marks of {name}: {BEGIN}, {END}; put them back")
        readme = f"{before}{begin}\n\n{text.strip()}\n\n{end}{after}"
    return readme


def draw(checkpoints: Path, of: set[str]) -> Iterator[tuple[str, Figure]]:
    """Draw the published runs of these data sets: `<data set>-samples.png` and so on."""
    datasets: dict[str, dict[str, Run]] = {}
    found = [load_run(record.parent) for record in checkpoints.glob(f"published/*/*/{RUN}")]
    if not found:
        raise FileNotFoundError("no run is published; git checkout -- checkpoints restores them")
    for run in sorted(found, key=lambda run: (run.config.params.name, run.folder)):
        config = run.config
        usual = (config.beta, config.reduction, config.schedule) == (1, "sum", "constant")
        if usual and config.params.name in Settings.sets and run.dataset["folder"] in of:
            label = f"{config.params.name} {run.model.title}"
            datasets.setdefault(run.dataset["name"], {})[label] = run
    for name, runs in datasets.items():
        models = {label: run.model for label, run in runs.items()}
        trained = f"trained on {next(iter(runs.values())).dataset['title']}"
        draws = f"Decoded draws from the prior, {trained}"
        lines = f"Straight lines between two draws, {trained}"
        yield f"{name}-samples.png", figures.samples(models, draws, 12)
        yield f"{name}-interpolation.png", figures.interpolations(models, lines)
        curves = figures.loss_curves(runs, f"Validation loss, {trained}", training=False)
        yield f"{name}-curves.png", curves


def draw_ladder(results: pd.DataFrame, answers: pd.DataFrame) -> Figure:
    """Draw the two models and the rungs between them, on images in order and permuted."""
    of_linear, title = results["model"] == "linear", answers["title"].iloc[0]
    linear = results[of_linear & (results["title"] == title)]["test_loss"].mean()
    return figures.ladder(tables.by_permutation(tables.tuned(answers)), linear, title)
