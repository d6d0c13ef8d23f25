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
from vae_core.models import MODELS
from vae_core.runs.results import read_results
from vae_core.storage import PROJECT
from vae_study.budgets import LADDER, losses_by_permutation, on_full_images, tuned_runs

NOTEBOOKS = PROJECT / "notebooks"
NAMES = sorted({path.stem for path in NOTEBOOKS.glob("[0-9]*")})  # of sources and of notebooks
# The notebooks of this repository; one that somebody adds need not follow the course's rules.
SHIPPED = [
    "00_why_variational",
    "01_fc_vs_cvae",
    "02_tuning",
    "03_interpolation",
    "04_celeba",
    "05_posterior_collapse",
    "06_fair_comparison",
    "07_what_a_convolution_knows",
    "08_rate_distortion",
    "09_holes_and_meaning",
    "10_explorer",
]
EACH = pytest.mark.parametrize("name", NAMES)
EACH_SHIPPED = pytest.mark.parametrize("name", SHIPPED)


@cache
def cells(name):
    return json.loads((NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]


def outputs(name):
    code = [cell for cell in cells(name) if cell["cell_type"] == "code"]
    return [output for cell in code for output in cell["outputs"]]


def printed_text(name):
    """All text in the outputs of a stored notebook."""
    texts = [output.get("text") or output["data"].get("text/plain", "") for output in outputs(name)]
    return "\n".join("".join(text) for text in texts)


def printed_numbers(name, pattern):
    """The numbers in the only match of `pattern` in what a notebook printed."""
    (match,) = re.findall(pattern, printed_text(name))
    numbers = [match] if isinstance(match, str) else match
    return [float(number) for number in numbers]


@EACH
def test_the_two_files_of_a_pair_agree(name):
    source = jupytext.read(NOTEBOOKS / f"{name}.py")
    stored = jupytext.read(NOTEBOOKS / f"{name}.ipynb")
    compare_notebooks(stored, source, fmt="py:percent")  # raises with a diff; see `make pair`


@EACH
def test_no_stored_output_is_an_error(name):
    assert "error" not in [output["output_type"] for output in outputs(name)]


@EACH_SHIPPED
def test_outputs_are_stored_in_order_without_warnings_or_widgets(name):
    code = [cell for cell in cells(name) if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    for output in outputs(name):
        assert output.get("name") != "stderr"
        assert "widget" not in str(output)


@EACH_SHIPPED
def test_the_figures_are_worth_looking_at_and_begin_early(name):
    pngs = ["".join(output.get("data", {}).get("image/png", "")) for output in outputs(name)]
    pngs = [png for png in pngs if png]
    assert len(pngs) > 3
    first = Image.open(io.BytesIO(base64.b64decode(pngs[0]))).convert("RGB")
    assert np.std(first) > 5
    # The first screen has a figure among the first four code cells.
    code = [cell for cell in cells(name) if cell["cell_type"] == "code"]
    assert any("image/png" in str(cell["outputs"]) for cell in code[:4])


@EACH_SHIPPED
def test_a_notebook_has_a_question_an_exercise_and_a_next_one(name):
    markdown = [cell for cell in cells(name) if cell["cell_type"] == "markdown"]
    prose = "\n".join("".join(cell["source"]) for cell in markdown)
    assert prose.startswith("# ")
    assert "## Now you" in prose
    assert prose.count("?") >= 4
    for target in re.findall(r"\]\(([^)#]+)\)", prose.replace("\n", "")):
        assert (NOTEBOOKS / target).exists(), target
    following = SHIPPED[(SHIPPED.index(name) + 1) % len(SHIPPED)]
    assert f"({following}.ipynb)" in prose.replace("\n", "")


def test_00_draws_miss_a_part_of_the_autoencoders_codes_and_hardly_any_of_the_vaes():
    name, neighbours = "00_why_variational", "of codes and draws have a nearest neighbour .*"
    line = rf"autoencoder: ([\d.]+) {neighbours}\n +inside .*: ([\d.]+)\n +outside lie (\d+)% .*\n"
    plain, inside, lost, vae = printed_numbers(name, rf"{line}VAE: ([\d.]+) {neighbours}")
    (moved,) = printed_numbers(name, r"moved by one: ([\d.]+)")
    (fitted,) = printed_numbers(name, r"normal distribution of its own: ([\d.]+)")
    assert min(plain, fitted) > vae + 0.08 and 0.45 < vae < moved - 0.03
    assert inside < plain - 0.05 and lost > 25
    line = r"autoencoder, 128 .*error ([\d.]+) .*\nVAE, 128 .*error ([\d.]+) .*, ([\d.]+) from"
    light, drawn, of_mean = printed_numbers(name, line)
    assert light < of_mean < drawn


def test_01_the_cvae_has_the_lower_loss():
    name = "01_fc_vs_cvae"
    (difference,) = printed_numbers(name, r"The CVAE's test loss is lower by ([\d.]+) nats")
    fc, conv, linear = printed_numbers(name, r"\ntest loss +([\d.]+) +([\d.]+) +([\d.]+)\n")
    assert difference == pytest.approx(fc - conv, abs=0.11) and fc - conv > 1 and linear > fc
    assert "negative_elbo is the loss of vae_core" in printed_text(name)
    usual, noise, mean = (
        printed_numbers(name, rf"\n{images} +\d+ +\d+ +(\d+) +(\d+)")
        for images in ("test images", "noise", "the mean of the test images")
    )
    assert noise[0] > 5 * usual[0]  # to the CVAE
    assert noise[1] > 5 * usual[1] > 10 * mean[1]  # to the linear VAE


def test_02_of_three_intervals_one_above_zero_is_not_enough():
    line = r"\nthe CVAE stops earlier +3 +(-?[\d.]+) ± ([\d.]+) +not shown"
    stops = [
        float(mean) > float(half) for mean, half in re.findall(line, printed_text("02_tuning"))
    ]
    verdicts = re.findall(r" 3 +-?[\d.]+ ± [\d.]+ +([a-z].*\S)", printed_text("02_tuning"))
    assert stops == [False, True, False] and {*verdicts} == {"holds", "not shown"}


def test_03_walks_are_even_and_nearly_cross_fades_but_between_shapes():
    text = printed_text("03_interpolation")
    line = r"(.+): largest over mean step ([\d.]+) ± [\d.]+ straight, ([\d.]+)"
    steps = {
        name: (float(straight), float(spherical))
        for name, straight, spherical in re.findall(line, text)
    }
    assert steps.pop("linear VAE, CIFAR-10")[0] == 1 and min(steps.pop("CVAE, shapes")) > 1.5
    assert len(steps) == 3 and all(1 < step < 1.5 for pair in steps.values() for step in pair)
    line = r"(.+): half-way, walk and cross-fade are (\d+)% as far apart"
    apart = {name: float(share) for name, share in re.findall(line, text)}
    assert apart.pop("linear VAE, CIFAR-10") == 0 and apart.pop("CVAE, shapes") > 30
    assert len(apart) == 3 and all(0 < share < 17 for share in apart.values())


def test_04_few_latents_carry_a_face_and_what_is_odd_costs_more():
    busy, share = printed_numbers(
        "04_celeba", r"(\d+) of 128 latents carry .* together (\d+)% of the KL"
    )
    assert 15 <= busy <= 40 and share > 90
    line = r"imagined images: (\d+) .*\n.*, upside down: (\d+) .*\n.*\ndrawn faces: (\d+) nats"
    imagined, upside, strange = printed_numbers("04_celeba", line)
    assert imagined < upside < strange


def test_05_averaging_collapses_the_posterior_and_summing_does_not():
    text = printed_text("05_posterior_collapse")
    rows = re.findall(r"\((.)\) .*KL +([\d.]+) +[\d.]+ +([\d.]+) +(\d+) of 128", text)
    error = {name: float(value) for name, value, _, _ in rows}
    kl = {name: float(value) for name, _, value, _ in rows}
    active = {name: int(count) for name, _, _, count in rows}
    assert active["a"] == 0 and kl["a"] < 0.05
    assert active["b"] > active["c"] >= 10 and error["b"] < error["c"] and kl["b"] > 10 * kl["c"]
    (mean_image,) = printed_numbers(
        "05_posterior_collapse", r"squared error of the mean image: ([\d.]+)"
    )
    assert error["c"] < 0.5 * mean_image and abs(error["a"] - mean_image) < 0.05 * mean_image


def test_06_the_cvae_is_ahead_at_every_budget():
    text = printed_text(name := "06_fair_comparison")
    line = r"\n[\d.]+ +[\d.]+ ± [\d.]+ +\d +(-?[\d.]+) ± ([\d.]+)"
    ahead = [float(nats) - float(half) for nats, half in re.findall(line, text)]
    assert len(ahead) == 4 and min(ahead) > 0.5
    assert 3 < printed_numbers(name, r"an epoch of the CVAE costs ([\d.]+)")[0] < 3.5
    for model in ("FC-VAE", "CVAE", "linear VAE"):
        bounds = printed_numbers(name, rf"\n{model}: ([\d.]+), ([\d.]+), ([\d.]+) nats with")
        if model == "linear VAE":  # its posterior is the true one: more draws add nothing
            assert bounds == pytest.approx([bounds[0]] * 3, abs=0.2)
        else:
            assert bounds[0] - 0.5 > bounds[1] >= bounds[2]
    (_, _, single), (_, _, many) = re.findall(r"image: 1.*FC-VAE (.+), CVAE (.+), (.+) apart", text)
    assert 0.05 < 1 - float(many) / float(single) < 0.15  # a tenth


def test_07_place_is_what_the_convolution_lives_on():
    losses = losses_by_permutation(tuned_runs(read_results(PROJECT / "figures" / "answer.csv")))
    lost = losses[1.0].map(np.mean) - losses[0.0].map(np.mean)
    assert lost["conv"] > 10 and abs(lost["fc"]) < 2 < lost["local"]
    assert np.mean(losses.loc["conv", 1.0]) > np.mean(losses.loc["fc", 1.0])


def test_07_what_stands_side_by_side_has_cost_as_much():
    rows = read_results(PROJECT / "figures" / "answer.csv")
    rows = rows[rows["model"].isin(LADDER) & (rows["beta"] == 1)]
    cost = {name: operations(MODELS[name](128, (3, 32, 32))) for name in LADDER}
    for dataset, runs in rows.groupby("dataset"):
        spent = runs.groupby("model")["epochs"].min()
        spent *= spent.index.map(cost)
        assert len(spent) > 1 and spent.max() < 1.05 * spent.min(), dataset


def test_08_each_nat_is_worth_its_price():
    line = r"(FC-VAE|CVAE), (\d+) epochs, above the linear VAE: (.+)"
    lines = re.findall(line, printed_text(name := "08_rate_distortion"))
    above = {}
    for model, epochs, values in lines:
        differences = re.findall(r"(-?[\d.]+)(?: ± [\d.]+)? at β", values)
        above[model, int(epochs)] = [float(difference) for difference in differences]
    assert len(above["CVAE", 8]) == len(above["FC-VAE", 26]) == 7 and len(above["CVAE", 32]) >= 3
    pairs = zip(above["CVAE", 8], above["FC-VAE", 26], strict=True)
    assert all(0 < conv < fc for conv, fc in pairs)  # the matrix is ahead of both at every price
    curve = printed_numbers(name, r"curve at β 1: rate ([\d.]+), distortion ([\d.]+)")
    assert printed_numbers(
        name, r"linear VAE at β 1: rate ([\d.]+), distortion ([\d.]+)"
    ) == pytest.approx(curve, abs=0.2)


def test_09_the_holes_of_a_vae_lie_between_its_latents():
    number, text = r"(-?[\d.]+)", printed_text("09_holes_and_meaning")
    pairs = ("encoded or drawn", "encoded or shuffled", "shuffled or drawn")
    line = "(.+): " + ", ".join(f"{pair} {number}" for pair in pairs)
    apart = {row[0]: list(map(float, row[1:])) for row in re.findall(line, text)}
    assert min(apart.pop("CVAE, KL × 0.0001")) > 0.95
    assert min(apart.pop("CVAE, KL × 0.01")) > 0.7 and len(apart) == 3
    assert all(min(between) > 0.55 > within for *between, within in apart.values())
    row = r"(\w+)" + f" +{number}" * 5 + "\n?"
    known = {row[0]: list(map(float, row[1:])) for row in re.findall(row, text)}
    for factor in ("x", "y", "size", "heart", "square"):  # the CVAE knows more of geometry
        assert known[factor][0] > known[factor][1] + 0.1, factor


def test_09_the_encoder_decides_what_is_known_of_the_class():
    answers = tuned_runs(read_results(PROJECT / "figures" / "answer.csv"))
    permuted = answers[answers["dataset"].str.contains("permuted1")]
    in_order = on_full_images(answers).groupby("model")["class_accuracy"].mean()
    permuted = permuted.groupby("model")["class_accuracy"].mean()
    assert min(in_order["conv"], in_order["conv-fc"]) > max(in_order["fc"], in_order["fc-conv"])
    assert max(permuted[["conv", "fc-conv", "local"]]) < min(permuted[["fc", "conv-fc"]])
