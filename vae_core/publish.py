"""From the study's results to what the repository shows: weights, figures, the README's numbers.

`make publish RESULTS=report/results.csv DATASET=… FACES=…` does it after `make study`. Without
RESULTS it only writes the README's section and the figures again.
"""

import argparse
import sys
from collections.abc import Iterable
from datetime import date
from pathlib import Path

from vae_core import __version__
from vae_core.checkpoints import Run, load_run, write_run
from vae_core.claims import LOWER_LOSS, claims_table
from vae_core.data import TITLES, Dataset, load_dataset
from vae_core.evaluation import evaluate
from vae_core.experiment import published_run
from vae_core.files import CHECKPOINTS, PROJECT, write
from vae_core.gallery import draw_gallery
from vae_core.models import MODELS, build_model
from vae_core.results import (
    PUBLISHED,
    Result,
    Table,
    read_results,
    results_table,
    spread,
    study_loss,
    write_results,
)

FIGURES = PROJECT / "figures"
README = PROJECT / "README.md"
BEGIN, END = "<!-- results: make publish writes this -->", "<!-- end of results -->"
# How much lower a CVAE's loss is on CIFAR-10 (JPEG) than on the genuine pictures; data/README.md.
JPEG_EFFECT = 1.2
ROUNDING_LIMIT = 0.05


def comparison(results: Iterable[Result]) -> list[Result]:
    """Choose the study's own comparison: both models, on one data set, with the study's loss.

    Raises:
        ValueError: one of the two models is missing.
    """
    compared = [row for row in results if study_loss(row)]
    dataset = next((row["dataset"] for row in compared if row["model"] == "fc"), None)
    compared = [row for row in compared if row["dataset"] == dataset]
    if {row["model"] for row in compared} != set(MODELS):
        raise ValueError("the results lack one of the two models; take those of make study")
    return compared


def publish_run(run: Run, dataset: Dataset) -> Run:
    """Write a run's weights as float16 and mark it as published; return it as it then loads.

    Raises:
        ValueError: the rounding changes the test loss by more than 0.05 nats per picture, or the
            data set is not the one that the run has learned.
        OSError: a file cannot be written.
    """
    if run.record.get("published"):
        return run
    if dataset.fingerprint != run.config["fingerprint"]:
        raise ValueError(f"{run.folder} has not learned {dataset.title}; give its data set")
    weights = {name: value.half() for name, value in run.model.state_dict().items()}
    rounded = build_model(run.config["model"], run.config["params"]["latent_dim"])
    rounded.load_state_dict(weights)
    loss = run.summary["test"]["loss"]
    change = evaluate(rounded, dataset.test)["loss"] - loss
    if not abs(change) < ROUNDING_LIMIT:
        raise ValueError(
            f"{run.folder}: float16 weights change the test loss by {change:.3f}; publish float32"
        )
    published = {
        "version": __version__,
        "date": f"{date.today():%Y-%m-%d}",
        "weights": "float16",
        "rounding": round(change, 5),
    }
    record = {**run.record, "published": published}
    write_run(run.folder, weights, run.history, run.config, run.summary, record)
    return load_run(run.folder)


def results_section(results: list[Result]) -> str:
    """Say in Markdown what the results are; every number in it is computed from them."""
    compared = comparison(results)
    seeds = sorted({row["seed"] for row in compared})
    table, claims = results_table(compared), claims_table(compared)
    paragraphs = [
        _answer(claims),
        table.markdown(),
        f"{_title(compared[0])}, in nats per picture: mean ± standard deviation over the seeds "
        f"{', '.join(map(str, seeds))}; weights of the epoch with the lowest training loss. "
        "Reconstruction and KL are those of the test loss. "
        + _beside_the_published(table, compared),
        *_faces(results, compared),
        "**What became of the study's claims.** Differences are means over the seeds with their "
        "95 % confidence intervals (paired by seed, not corrected for their number); a claim holds "
        f"where its interval lies above zero. {_stopped_early(compared)}",
        claims.markdown(),
        _smoothness(compared),
        *_collapse(results, compared),
        _cost(results, seeds[0]),
    ]
    return "\n\n".join(paragraphs)


def _answer(claims: Table) -> str:
    falls = [row for row in claims.rows if row["claim"] == LOWER_LOSS]
    if not falls or any(row["verdict"] != "holds" for row in falls):
        return "**Not with every parameter set**: see the claims below."
    means = [row["difference"].mean for row in falls]
    return (
        "**Yes.** With every parameter set the CVAE's test loss is lower than the FC-VAE's, by "
        f"{min(means):.1f} to {max(means):.1f} nats per picture, and by more than the noise of the "
        "seeds."
    )


def _title(row: Result) -> str:
    return TITLES.get(row["dataset"], row["dataset"])


def _beside_the_published(table: Table, compared: list[Result]) -> str:
    if compared[0]["dataset"] != "cifar10-jpeg":
        return "The published numbers are for CIFAR-10."
    differences = [
        row["training loss"].mean + JPEG_EFFECT - row["published loss"]
        for row in table.rows
        if row["published loss"] != "–"
    ]
    return (
        f"The JPEG pictures lower the loss by about {JPEG_EFFECT} against the genuine ones "
        "(measured with one CVAE); with that added, the training losses differ from the published "
        f"ones by {min(differences):+.1f} to {max(differences):+.1f}."
    )


def _stopped_early(compared: list[Result]) -> str:
    early = []
    for (params, model), (published, _) in PUBLISHED.items():
        same = [row for row in compared if (row["params"], row["model"]) == (params, model)]
        if same and spread([row["epochs"] for row in same]).mean < published / 2:
            early.append(f"the {MODELS[model].title} with {params}")
    if not early:
        return ""
    return (
        f"The models are compared where early stopping left them: {' and '.join(early)} stopped in "
        "less than half of the published epochs, and that part of the difference is the rule's."
    )


def _faces(results: list[Result], compared: list[Result]) -> list[str]:
    faces = [row for row in results if row["dataset"] != compared[0]["dataset"]]
    if not faces:
        return []
    loss, reconstruction, kl = (
        spread([row[f"test_{part}"] for row in faces]) for part in ("loss", "reconstruction", "kl")
    )
    return [
        f"**Faces.** The CVAE ({faces[0]['params']}) on {_title(faces[0])}: test loss {loss}, of "
        f"which reconstruction {reconstruction} and KL {kl}, after "
        f"{spread([row['epochs'] for row in faces])} epochs ({len(faces)} seeds)."
    ]


def _smoothness(compared: list[Result]) -> str:
    cvae, fc = (
        spread([row["unevenness"] for row in compared if row["model"] == model])
        for model in ("conv", "fc")
    )
    return (
        "**Interpolation.** In ten pictures on a straight line between two draws from the prior, "
        f"the largest of the nine steps is {cvae:.2f} times the mean step for the CVAE and "
        f"{fc:.2f} times for the FC-VAE (50 pairs a run, mean ± standard deviation over all runs): "
        "1 would be perfectly even, 9 a single jump."
    )


def _collapse(results: list[Result], compared: list[Result]) -> list[str]:
    alike = ("dataset", "model", "params", "seed")
    mean = next((row for row in results if row["reduction"] == "mean"), None)
    light = next((row for row in results if row["beta"] != 1), None)
    if mean is None or light is None:
        return []
    balanced = [row for row in compared if all(row[name] == mean[name] for name in alike)]
    if not balanced:
        return []
    model = f"{MODELS[mean['model']].title} ({mean['params']})"
    return [
        f"**Posterior collapse.** Latent dimensions that the {model} uses, of "
        f"{mean['latent_dim']}: {balanced[0]['active_dimensions']} with the summed squared error; "
        f"{mean['active_dimensions']} with the mean, the posterior having collapsed onto the prior "
        f"(after {mean['epochs']} epochs, since the stopping rule takes so small a loss for no "
        f"progress); {light['active_dimensions']} with the KL term times {light['beta']:g}, a "
        "plain autoencoder whose samples mean nothing."
    ]


def _cost(results: list[Result], seed: int) -> str:
    runs = [row for row in results if row["seed"] == seed]
    changes = [abs(row["rounding"]) for row in runs if row["rounding"] is not None]
    machine = f"{runs[0]['processor']}, {runs[0]['threads']} threads, {runs[0]['precision']}"
    text = (
        f"**What it takes.** The study with one seed ({len(runs)} trainings) took "
        f"{sum(row['seconds'] for row in runs):,.0f} seconds of training ({machine})."
    )
    if changes:
        text += (
            f" The {len(changes)} published weights are rounded to float16, which changes their "
            f"test losses by at most {max(changes):.4f}."
        )
    return text


def with_section(readme: str, section: str) -> str:
    """Return the README's text with this section of results.

    Raises:
        ValueError: the marks of the section are missing.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the README lacks the marks {BEGIN} and {END}; put them back")
    return f"{before}{BEGIN}\n\n{section}\n\n{END}{after}"


def publish(results: list[Result], datasets: list[Dataset], folder: Path) -> list[Result]:
    """Publish the runs of the first seed; return the results with what the rounding changed.

    Raises:
        ValueError: a data set is missing or another one, or rounding changes too much.
        FileNotFoundError: a run is missing.
    """
    by_name = {dataset.name: dataset for dataset in datasets}
    first = min(row["seed"] for row in results)
    chosen = [row for row in results if row["seed"] == first and study_loss(row)]
    if missing := sorted({row["dataset"] for row in chosen} - by_name.keys()):
        raise ValueError(f"{missing[0]} is not among the data sets; give its name or path")
    published = []
    for row in results:
        if row in chosen:
            run = published_run(row["model"], row["params"], row["dataset"], first, folder)
            run = publish_run(run, by_name[row["dataset"]])
            row = {**row, "rounding": run.record["published"]["rounding"]}
        published.append(row)
    return published


def main(arguments: list[str] | None = None) -> int:
    """Publish; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m vae_core.publish", description=__doc__)
    parser.add_argument("--results", type=Path, help="what make study wrote")
    parser.add_argument("--datasets", nargs="*", default=[], help="names or paths, as in the study")
    parser.add_argument("--checkpoints", type=Path, default=CHECKPOINTS)
    chosen = parser.parse_args(arguments)
    table = FIGURES / "results.csv"
    try:
        if chosen.results:
            results = read_results(chosen.results)
            results_section(results)  # refuses unusable results before anything is written
            datasets = [load_dataset(name) for name in chosen.datasets]
            write_results(table, publish(results, datasets, chosen.checkpoints))
        section = results_section(read_results(table))
        write(README, with_section(README.read_text(encoding="utf-8"), section))
        draw_gallery(FIGURES, chosen.checkpoints)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
