"""The numbers of the README and of docs/results.md: computed from the tables, filled into the text.

In the text a number stands between `<!--name-->` and `<!---->`, as in
`by <!--gain_longest-->2.7 ± 0.2<!----> nats`, and a table between `<!-- table name -->` and
`<!-- end of table -->`. A line must not begin with the mark of a number, since Markdown would take
the line for HTML.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from vae_core.evaluation import operations
from vae_core.intervals import Interval, format_mean_sd, welch_difference
from vae_core.models import MODELS
from vae_core.storage import PROJECT
from vae_study.budgets import (
    COMPARED,
    LADDER,
    dataset_option,
    equal_budgets_table,
    losses_by_permutation,
    on_full_images,
    tuned_runs,
)
from vae_study.claims import (
    LOWER_LOSS,
    ORIGINAL_RESULTS,
    claims_table,
    results_table,
    with_original_loss,
)

DOCUMENTS = (PROJECT / "README.md", PROJECT / "docs" / "results.md")
NUMBER = r"(<!--(\w+)-->)"
TABLE = r"(<!-- table (\w+) -->)"
END_OF_NUMBER = "<!---->"
END_OF_TABLE = "<!-- end of table -->"
IMAGE_SHAPE = (3, 32, 32)
SHARING_LADDER = ("fc", "local", "conv")


def fill_documents(
    paths: Iterable[Path], results: pd.DataFrame, answers: pd.DataFrame
) -> dict[Path, str]:
    """Return the text of each document, filled with the numbers and tables of the results.

    Args:
        results: runs with the original study's training, `figures/results.csv`.
        answers: runs at equal budgets, `figures/answer.csv`.

    Raises ValueError where runs are missing, or a document's marks are wrong.
    """
    numbers = all_numbers(results, answers)
    tables = all_tables(results, answers)
    texts = {}
    for path in paths:
        try:
            text = fill_numbers(path.read_text(encoding="utf-8"), numbers)
            texts[path] = fill_tables(text, tables)
        except ValueError as error:
            raise ValueError(f"{path.name}: {error}") from error
    return texts


def fill_numbers(text: str, numbers: Mapping[str, str]) -> str:
    """Replace what stands between `<!--name-->` and `<!---->` by the number of this name.

    Raises ValueError for an unknown name and for a number without an end.

    >>> fill_numbers("by <!--gain-->?<!----> nats", {"gain": "2.7"})
    'by <!--gain-->2.7<!----> nats'
    """
    advice = "vae_study/numbers.py has all names"
    return fill_marks(text, NUMBER, END_OF_NUMBER, numbers, ("number", advice))


def fill_tables(text: str, tables: Mapping[str, pd.DataFrame]) -> str:
    """Replace what stands between `<!-- table name -->` and its end by the table of this name.

    Raises ValueError for an unknown name and for a table without an end.
    """
    advice = f"choose one of {', '.join(tables)}"
    contents = {name: f"\n\n{markdown(table)}\n\n" for name, table in tables.items()}
    return fill_marks(text, TABLE, END_OF_TABLE, contents, ("table", advice))


def fill_marks(
    text: str, mark: str, end: str, contents: Mapping[str, str], words: tuple[str, str]
) -> str:
    """Replace what stands between each mark and its end by the content of the mark's name.

    Args:
        mark: a regular expression of two groups, the whole mark and the name in it.
        words: what a content is called, and what to do about an unknown name; for the errors.
    """
    noun, advice = words
    filled, *marked = re.split(mark, text)
    for opening, name, rest in zip(marked[::3], marked[1::3], marked[2::3], strict=True):
        _, found_end, after = rest.partition(end)
        if name not in contents:
            raise ValueError(f"there is no {noun} {name!r}; {advice}")
        if not found_end:
            raise ValueError(f"the {noun} {name!r} has no end; write {end} after it")
        filled += f"{opening}{contents[name]}{end}{after}"
    return filled


def markdown(table: pd.DataFrame) -> str:
    """Return a table in Markdown, without its index."""
    rows = [table.columns, ["---"] * len(table.columns), *table.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in rows)


def all_numbers(results: pd.DataFrame, answers: pd.DataFrame) -> dict[str, str]:
    """Return every number that the documents may name, as text.

    Raises ValueError where one of the tables lacks runs that a number is about.
    """
    intervals = {name: str(interval) for name, interval in equal_budget_intervals(answers).items()}
    constant = results[results["schedule"] == "constant"]
    groups = stopped_runs(results)
    return {
        **intervals,
        **equal_budget_numbers(answers),
        **original_numbers(groups.comparison),
        **interpolation_numbers(groups.comparison),
        **face_numbers(groups.faces),
        **collapse_numbers(constant),
        **cost_numbers(constant, seed=groups.comparison["seed"].min()),
    }


def all_tables(results: pd.DataFrame, answers: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return every table that the documents may name; raise ValueError as `all_numbers`."""
    comparison = stopped_runs(results).comparison
    return {
        "budgets": budgets_table(tuned_runs(answers)),
        "results": results_table(comparison).reset_index(),
        "claims": claims_table(comparison).reset_index(),
    }


# Equal budgets: `answers`


def equal_budget_intervals(answers: pd.DataFrame) -> dict[str, Interval]:
    """Return every difference at equal budgets, in nats per image, by its name."""
    runs = tuned_runs(answers)
    return {
        **gains_by_budget(runs),
        **permutation_effects(runs),
        **locality_gains(runs),
        **half_gains(runs),
    }


def budgets_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the FC-VAE and the CVAE at equal budgets; raise ValueError where there are none."""
    latent_dim = runs["latent_dim"].iloc[0]
    cost = {}
    for name in COMPARED:
        cost[name] = operations(MODELS[name](latent_dim, IMAGE_SHAPE)) / 1e9
    unit = "operations per training image, 10⁹"
    table = equal_budgets_table(on_full_images(runs), cost, unit)
    if table.empty:
        raise ValueError("the answer lacks equal budgets of both models; take that of make answer")
    return table


def gains_by_budget(runs: pd.DataFrame) -> dict[str, Interval]:
    """Return how much lower the CVAE's loss is at the smallest and at the largest budget."""
    gains = budgets_table(runs)["difference"]
    full = on_full_images(runs)
    longest = full[full["epochs"] == full.groupby("model")["epochs"].transform("max")]
    training_losses = losses_by_model(longest, "train_loss")
    return {
        "gain_shortest": gains.iloc[0],
        "gain_longest": gains.iloc[-1],
        "training_gap_longest": welch_difference(training_losses["fc"], training_losses["conv"]),
    }


def permutation_effects(runs: pd.DataFrame) -> dict[str, Interval]:
    """Return the rise of the loss by a permutation of all pixels, and the deficit to the FC-VAE."""
    in_order, permuted = ladder_losses(runs, 0.0), ladder_losses(runs, 1.0)
    return {
        "conv_permuted_rise": welch_difference(permuted["conv"], in_order["conv"]),
        "fc_permuted_rise": welch_difference(permuted["fc"], in_order["fc"]),
        "conv_permuted_deficit": welch_difference(permuted["conv"], permuted["fc"]),
        "local_permuted_deficit": welch_difference(permuted["local"], permuted["fc"]),
    }


def locality_gains(runs: pd.DataFrame) -> dict[str, Interval]:
    """Return what local windows gain over the FC-VAE, and what weight sharing gains over them.

    They are gains in the shortest trainings, after four times as many epochs, and for sharing also
    with the smallest part of the training images.
    """
    shortest = ladder_losses(runs, 0.0)
    full = on_full_images(runs)
    four_times = full["epochs"] == 4 * full.groupby("model")["epochs"].transform("min")
    longer = losses_by_model(full[four_times])
    require_models(longer, SHARING_LADDER, "four times the shortest training")
    fraction = dataset_option(runs, "fraction")
    few = losses_by_model(runs[fraction == fraction.min()])
    require_models(few, SHARING_LADDER, "a fraction of the training images")
    return {
        "gain_local": welch_difference(shortest["fc"], shortest["local"]),
        "gain_local_longer": welch_difference(longer["fc"], longer["local"]),
        "gain_sharing": welch_difference(shortest["local"], shortest["conv"]),
        "gain_sharing_longer": welch_difference(longer["local"], longer["conv"]),
        "gain_sharing_few": welch_difference(few["local"], few["conv"]),
    }


def half_gains(runs: pd.DataFrame) -> dict[str, Interval]:
    """Return what a convolutional encoder or decoder alone gains, in the shortest trainings."""
    losses = ladder_losses(runs, 0.0)
    return {
        "gain_encoder": welch_difference(losses["fc"], losses["conv-fc"]),
        "gain_decoder": welch_difference(losses["fc"], losses["fc-conv"]),
        "gain_decoder_after_encoder": welch_difference(losses["conv-fc"], losses["conv"]),
    }


def equal_budget_numbers(answers: pd.DataFrame) -> dict[str, str]:
    """Return what the models and the trainings at equal budgets are."""
    latent_dim = answers["latent_dim"].iloc[0]
    fewest = dataset_option(tuned_runs(answers), "fraction").min()
    numbers = {
        "answer_title": answers["title"].iloc[0],
        "answer_runs": str(len(answers)),
        "answer_hours": f"{answers['seconds'].sum() / 3600:.1f}",
        "fewest_percent": f"{100 * fewest:.0f}",
    }
    for name in COMPARED:
        weights = sum(w.numel() for w in MODELS[name](latent_dim, IMAGE_SHAPE).parameters())
        numbers[f"weights_{name}"] = f"{weights / 1e6:.1f}"  # millions
    return numbers


def ladder_losses(runs: pd.DataFrame, permuted: float) -> pd.Series:
    """Return a list of test losses for each model of `LADDER`, in the shortest trainings.

    `permuted` is the share of permuted pixels. Raises ValueError where a model has no such runs.
    """
    losses = losses_by_permutation(runs).reindex(columns=[permuted])[permuted].dropna()
    require_models(losses, LADDER, f"permuted {permuted:g}")
    return losses


def losses_by_model(runs: pd.DataFrame, column: str = "test_loss") -> pd.Series:
    """Return a list of losses, one a run, for each model."""
    return runs.groupby("model")[column].agg(list)


def require_models(losses: pd.Series, models: Iterable[str], where: str) -> None:
    """Raise ValueError for the first model that `losses` by model lacks."""
    for model in models:
        if model not in losses:
            raise ValueError(f"the answer lacks {model} ({where}); take that of make answer")


# The original study's training: `results`


class StoppedRuns(NamedTuple):
    """Runs with the original study's loss and early stopping, by data set."""

    comparison: pd.DataFrame  # both models and the linear VAE
    faces: pd.DataFrame  # the CVAE and the linear VAE


def stopped_runs(results: pd.DataFrame) -> StoppedRuns:
    """Select the runs with the original study's loss, by data set.

    The comparison has the data set and the parameter sets of the FC-VAE. Raises ValueError where a
    model is missing.
    """
    original = with_original_loss(results)
    fc = original[original["model"] == "fc"]
    if fc.empty or "conv" not in set(original["model"]):
        raise ValueError("the results lack one of the two models; take those of make study")
    on_comparison = original["dataset"] == fc["dataset"].iloc[0]
    compared_sets = original["params"].isin(fc["params"])
    return StoppedRuns(original[on_comparison & compared_sets], original[~on_comparison])


def original_numbers(comparison: pd.DataFrame) -> dict[str, str]:
    """Return our losses beside the original study's, in nats per image."""
    mean_losses = comparison.groupby(["params", "model"])["train_loss"].mean()
    published = pd.Series({key: result.loss for key, result in ORIGINAL_RESULTS.items()})
    published_gains = published.xs("fc", level=1) - published.xs("conv", level=1)
    training_gains = mean_losses.xs("fc", level=1) - mean_losses.xs("conv", level=1)
    claims = claims_table(comparison)
    test_gains = [interval.mean for interval in claims.loc[[LOWER_LOSS], "difference"]]
    differences = [
        loss - ORIGINAL_RESULTS[key].loss
        for key, loss in mean_losses.items()
        if key in ORIGINAL_RESULTS
    ]
    return {
        "title": comparison["title"].iloc[0],
        "seeds": ", ".join(map(str, sorted(comparison["seed"].unique()))),
        "original_gain_min": f"{published_gains.min():.1f}",
        "original_gain_max": f"{published_gains.max():.1f}",
        "training_gain_min": f"{training_gains.min():.1f}",
        "training_gain_max": f"{training_gains.max():.1f}",
        "test_gain_min": f"{min(test_gains):.1f}",
        "test_gain_max": f"{max(test_gains):.1f}",
        "difference_from_original_min": f"{min(differences):+.1f}",
        "difference_from_original_max": f"{max(differences):+.1f}",
        "linear_loss": f"{linear_loss(comparison):.1f}",
    }


def linear_loss(runs: pd.DataFrame) -> float:
    """Return the mean test loss of the linear VAE, in nats per image."""
    return runs[runs["model"] == "linear"]["test_loss"].mean()


def interpolation_numbers(comparison: pd.DataFrame) -> dict[str, str]:
    """Return the unevenness of interpolations between samples from the prior, for both models."""
    numbers = {}
    for name in COMPARED:
        values = comparison[comparison["model"] == name]["unevenness"]
        numbers[f"unevenness_{name}"] = format_mean_sd(values, 2)
    return numbers


def face_numbers(faces: pd.DataFrame) -> dict[str, str]:
    """Return the losses of the CVAE and of the linear VAE on faces."""
    conv = faces[faces["model"] == "conv"]
    if conv.empty:
        raise ValueError("the results lack the CVAE on faces; take those of make study")
    return {
        "faces_title": conv["title"].iloc[0],
        "faces_seeds": str(len(conv)),
        "faces_loss": format_mean_sd(conv["test_loss"]),
        "faces_reconstruction": format_mean_sd(conv["test_reconstruction"]),
        "faces_kl": format_mean_sd(conv["test_kl"]),
        "faces_epochs": format_mean_sd(conv["epochs"]),
        "faces_linear_loss": f"{linear_loss(faces):.1f}",
    }


def collapse_numbers(constant: pd.DataFrame) -> dict[str, str]:
    """Return the active latents with the original loss, an averaged error, and a light KL term.

    `constant` has all runs with a constant learning rate.
    """
    averaged = constant[constant["reduction"] == "mean"]
    light = constant[(constant["beta"] > 0) & (constant["beta"] < 1)]
    # The run that differs from the averaged one in its reduction only
    summed = with_original_loss(constant).merge(averaged[["dataset", "model", "params", "seed"]])
    if summed.empty or light.empty:
        raise ValueError("the results lack the runs of 05 on collapse; take those of make study")
    summed, averaged, light = summed.iloc[0], averaged.iloc[0], light.iloc[0]
    return {
        "latents": str(averaged["latent_dim"]),
        "active_sum": f"{summed['active_dimensions']:.0f}",
        "active_mean": f"{averaged['active_dimensions']:.0f}",
        "epochs_mean": str(averaged["epochs"]),
        "active_light": f"{light['active_dimensions']:.0f}",
        "light_beta": str(light["beta"]),
    }


def cost_numbers(constant: pd.DataFrame, seed: int) -> dict[str, str]:
    """Return what the trainings with one seed took, and what rounding their weights changes."""
    trained = [not MODELS[name].closed_form for name in constant["model"]]
    runs = constant[trained]
    runs = runs[runs["seed"] == seed]
    changes = runs["rounding"].abs().dropna()
    return {
        "first_seed_runs": str(len(runs)),
        "first_seed_seconds": f"{runs['seconds'].sum():,.0f}",
        "processor": runs["processor"].iloc[0],
        "threads": runs["threads"].iloc[0],
        "precision": runs["precision"].iloc[0],
        "rounded_runs": str(len(changes)),
        "rounding_max": f"{max(changes, default=0.0):.4f}",
    }
