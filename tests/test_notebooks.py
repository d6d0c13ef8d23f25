"""What the stored notebooks show: pairs that agree, outputs, and statements that are true."""

import base64
import io
import json
import re
from functools import cache

import jupytext
import numpy as np
import pytest
from jupytext.compare import compare_notebooks
from PIL import Image

from vae_core.evaluation import operations
from vae_core.experiment import published_run
from vae_core.models import MODELS
from vae_core.storage import PROJECT
from vae_core.tables import (
    as_it_is,
    at_equal_budgets,
    by_permutation,
    claims_table,
    read_results,
    spread,
    tuned,
    with_the_studys_loss,
)

NOTEBOOKS = PROJECT / "notebooks"
SOURCES = sorted(NOTEBOOKS.glob("*.py"))
EACH = pytest.mark.parametrize("name", [path.stem for path in SOURCES])


@cache
def cells(name):
    return json.loads((NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]


def outputs(name):
    code = [cell for cell in cells(name) if cell["cell_type"] == "code"]
    return [output for cell in code for output in cell["outputs"]]


def said(name):
    """All text that the stored notebook's outputs show."""
    shown = [output.get("text") or output["data"].get("text/plain", "") for output in outputs(name)]
    return "\n".join("".join(text) for text in shown)


def found(name, pattern):
    """The numbers of the only place where `pattern` stands in what a notebook shows."""
    (match,) = re.findall(pattern, said(name))
    return [float(number) for number in ([match] if isinstance(match, str) else match)]


def drawn(name):
    """The figures of a stored notebook as arrays."""
    images = [
        output["data"]["image/png"]
        for output in outputs(name)
        if "data" in output and "image/png" in output["data"]
    ]
    decoded = (Image.open(io.BytesIO(base64.b64decode("".join(image)))) for image in images)
    return [np.asarray(image.convert("RGB"), dtype=float) for image in decoded]


def test_each_source_has_its_notebook_and_each_notebook_its_source():
    stored = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))
    assert [path.stem for path in SOURCES] == stored and stored


@EACH
def test_the_two_of_a_pair_say_the_same(name):
    written, stored = (jupytext.read(NOTEBOOKS / f"{name}.{kind}") for kind in ("py", "ipynb"))
    compare_notebooks(stored, written, fmt="py:percent")  # raises with a diff; see `make pair`


@EACH
def test_outputs_are_stored_and_worth_looking_at(name):
    code = [cell for cell in cells(name) if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert all(output["output_type"] != "error" for output in outputs(name))
    assert all(output.get("name") != "stderr" for output in outputs(name))
    first, *others = drawn(name)
    assert len(others) >= 3 and first.std() > 5
    # The first screen: a figure among the first four code cells.
    assert any("image/png" in str(cell["outputs"]) for cell in code[:4])
    assert not any("widget" in str(output) for output in outputs(name))


@EACH
def test_a_notebook_asks_shows_and_leads_on(name):
    prose = "\n".join(
        "".join(cell["source"]) for cell in cells(name) if cell["cell_type"] == "markdown"
    )
    assert prose.startswith("# ") and "## Now you" in prose and prose.count("?") >= 4
    for target in re.findall(r"\]\(([^)#]+)\)", prose.replace("\n", "")):
        assert (NOTEBOOKS / target).exists(), target
    following = SOURCES[(SOURCES.index(NOTEBOOKS / f"{name}.py") + 1) % len(SOURCES)]
    assert f"({following.stem}.ipynb)" in prose.replace("\n", "")


def test_00_draws_miss_a_part_of_the_autoencoders_codes_and_hardly_any_of_the_vaes():
    kind = "of codes and draws have a nearest neighbour"
    (plain,) = found("00_why_variational", rf"autoencoder: ([\d.]+) {kind}")
    (vae,) = found("00_why_variational", rf"VAE: ([\d.]+) {kind}")
    (own,) = found("00_why_variational", r"normal distribution of its own: ([\d.]+)")
    assert min(plain, own) > vae + 0.08 and 0.45 < vae < 0.6
    kept_in = r"\n +([\d.]+) of as many of each inside .*\n +outside lie (\d+)% of the codes"
    inside, lost = found("00_why_variational", rf"autoencoder: .*{kept_in}")
    assert inside < plain - 0.05 and lost > 25
    light, whole = (
        found("00_why_variational", rf"{model}, 128 latents: squared error ([\d.]+)")[0]
        for model in ("0.0001", "VAE")
    )
    assert light < whole


def test_01_the_cvae_has_the_lower_loss():
    (difference,) = found("01_fc_vs_cvae", r"The CVAE's test loss is lower by ([\d.]+) nats")
    losses = [
        published_run(model, "p2", "shapes").summary["test"]["loss"]
        for model in ("fc", "conv", "linear")
    ]
    assert difference == pytest.approx(losses[0] - losses[1], abs=0.06) and difference > 1
    row = "test loss +" + " +".join(f"{loss:.1f}" for loss in losses)
    assert re.search(rf"{row}\n", said("01_fc_vs_cvae")) and losses[2] > losses[0]
    assert "negative_elbo is the loss of vae_core" in said("01_fc_vs_cvae")
    usual, noise, mean = (
        found("01_fc_vs_cvae", rf"\n{kind} +\d+ +(\d+) +(\d+)")
        for kind in ("test images", "noise", "the mean of the test images")
    )
    assert noise[0] > 5 * usual[0]  # to the CVAE
    assert noise[1] > 5 * usual[1] > 10 * mean[1]  # to the linear VAE


def test_02_the_claims_are_those_of_the_results():
    table = with_the_studys_loss(read_results(PROJECT / "figures" / "results.csv"))
    claims = claims_table(table[table["title"] == "CIFAR-10 (JPEG)"])
    shown = said("02_tuning")
    for claim, row in claims.iterrows():
        line = rf"{re.escape(claim)} +{row['seeds']} +{re.escape(str(row['difference']))} +"
        assert re.search(line + row["verdict"], shown), claim
    assert set(claims["verdict"]) == {"holds", "not shown"}


def test_03_walks_are_even_and_nearly_cross_fades_but_between_shapes():
    shown = said("03_interpolation")
    line = r"(.+): largest over mean step ([\d.]+) ± [\d.]+ straight, ([\d.]+)"
    steps = {name: [float(step) for step in ways] for name, *ways in re.findall(line, shown)}
    assert steps.pop("linear VAE, CIFAR-10")[0] == 1 and min(steps.pop("CVAE, shapes")) > 1.5
    assert len(steps) == 3 and all(1 < step < 1.5 for ways in steps.values() for step in ways)
    line = r"(.+): between walk and cross-fade ([\d.]+)%"
    apart = {name: float(share) for name, share in re.findall(line, shown)}
    assert apart.pop("linear VAE, CIFAR-10") == 0 and apart.pop("CVAE, shapes") > 10
    assert len(apart) == 3 and all(0 < share < 3 for share in apart.values())


def test_04_the_faces_are_those_of_the_published_run():
    test = published_run("conv", "p2", "celeba-9k").summary["test"]
    assert found("04_celeba", r"test loss ([\d.]+) = ") == [pytest.approx(test["loss"], abs=0.06)]
    busy, share = found("04_celeba", r"(\d+) of 128 latents carry .* together (\d+)% of the KL")
    assert 15 <= busy <= 40 and share > 90
    imagined, upside, strange = (
        found("04_celeba", rf"{kind}: (\d+) nats")[0]
        for kind in ("imagined images", "upside down", "drawn faces")
    )
    assert imagined < upside < strange


def test_05_averaging_collapses_the_posterior_and_summing_does_not():
    rows = re.findall(
        r"\((.)\) .*KL +([\d.]+) +([\d.]+) +([\d.]+) +(\d+) of 128",
        said("05_posterior_collapse"),
    )
    error, _, kl, active = ({row[0]: float(row[n]) for row in rows} for n in (1, 2, 3, 4))
    assert active["a"] == 0 and kl["a"] < 0.05
    assert active["b"] > active["c"] >= 10 and error["b"] < error["c"] and kl["b"] > 10 * kl["c"]
    (mean_image,) = found("05_posterior_collapse", r"squared error of the mean image: ([\d.]+)")
    assert error["c"] < 0.5 * mean_image and abs(error["a"] - mean_image) < 0.05 * mean_image


def test_06_the_cvae_is_ahead_at_every_budget():
    cost = {name: operations(MODELS[name](128, (3, 32, 32))) for name in ("conv", "fc")}
    answers = tuned(read_results(PROJECT / "figures" / "answer.csv"))
    budgets = at_equal_budgets(answers, cost, "operations")
    shown = said(name := "06_fair_comparison")
    assert len(budgets) >= 3 and all(str(one) in shown for one in budgets["difference"])
    assert all(one.mean > 0.5 for one in budgets["difference"])
    costs = [
        found(name, rf"{model}: ([\d.]+) million operations")[0] for model in ("CVAE", "FC-VAE")
    ]
    assert found(name, r"an epoch of the CVAE costs ([\d.]+)") == [
        pytest.approx(costs[0] / costs[1], abs=0.02)
    ]
    for model in ("FC-VAE", "CVAE", "linear VAE"):
        bounds = found(name, rf"\n{model}: ([\d.]+), ([\d.]+), ([\d.]+) nats with")
        if model == "linear VAE":  # its posterior is the true one: more draws add nothing
            assert bounds == pytest.approx([bounds[0]] * 3, abs=0.2)
        else:
            assert bounds[0] - 0.5 > bounds[1] >= bounds[2]
    (_, _, one), (_, _, many) = re.findall(r"image: 1.*FC-VAE (.+), CVAE (.+), (.+) apart", shown)
    assert 0 < float(one) - float(many) < 0.1 * float(one)


def test_07_place_is_what_the_convolution_lives_on():
    losses = by_permutation(tuned(read_results(PROJECT / "figures" / "answer.csv")))
    shown = said("07_what_a_convolution_knows")
    for share in (0.0, 1.0):
        for model in ("fc", "fc-conv", "conv-fc", "local", "conv"):
            assert spread(losses.loc[model, share]) in shown
    lost = losses[1.0].map(np.mean) - losses[0.0].map(np.mean)
    assert lost["conv"] > 10 and abs(lost["fc"]) < 2 < lost["local"]
    assert np.mean(losses.loc["conv", 1.0]) > np.mean(losses.loc["fc", 1.0])


def test_08_each_nat_is_worth_its_price():
    lines = re.findall(r"(FC-VAE|CVAE), (\d+) epochs: ([-+].+)", said(name := "08_rate_distortion"))
    above = {
        (model, int(epochs)): [float(value) for value in re.findall(r"([-+][\d.]+) at β", told)]
        for model, epochs, told in lines
    }
    assert len(above["CVAE", 8]) == len(above["FC-VAE", 23]) == 7 and len(above["CVAE", 32]) >= 3
    pairs = zip(above["CVAE", 8], above["FC-VAE", 23], strict=True)
    assert all(0 < conv < fc for conv, fc in pairs)  # the matrix is ahead of both at every price
    curve = found(name, r"curve at β 1: rate ([\d.]+), distortion ([\d.]+)")
    assert found(name, r"linear VAE at β 1: rate ([\d.]+), distortion ([\d.]+)") == pytest.approx(
        curve, abs=0.2
    )


def test_09_the_holes_of_a_vae_lie_between_its_latents():
    number, shown = r"(-?[\d.]+)", said("09_holes_and_meaning")
    pairs = ("encoded or drawn", "encoded or shuffled", "shuffled or drawn")
    line = "(.+): " + ", ".join(f"{pair} {number}" for pair in pairs)
    apart = {row[0]: list(map(float, row[1:])) for row in re.findall(line, shown)}
    assert min(apart.pop("CVAE, KL × 0.0001")) > 0.95
    assert min(apart.pop("CVAE, KL × 0.01")) > 0.7 and len(apart) == 3
    assert all(min(between) > 0.55 > 0.53 > within for *between, within in apart.values())
    row = r"(\w+)" + f" +{number}" * 5 + "\n?"
    known = {row[0]: list(map(float, row[1:])) for row in re.findall(row, shown)}
    for factor in ("x", "y", "size", "heart", "square"):  # the CVAE knows more of geometry
        assert known[factor][0] > known[factor][1] + 0.1, factor


def test_09_the_encoder_decides_what_is_known_of_the_class():
    answers = tuned(read_results(PROJECT / "figures" / "answer.csv"))
    permuted = answers[answers["dataset"].str.contains("permuted1")]
    known, then = (
        some.groupby("model")["class_accuracy"].mean() for some in (as_it_is(answers), permuted)
    )
    assert min(known["conv"], known["conv-fc"]) > max(known["fc"], known["fc-conv"])
    assert max(then[["conv", "fc-conv", "local"]]) < min(then[["fc", "conv-fc"]])
