"""Moving through latent spaces: the explorer, its controls, and the page of a report."""

import dataclasses
import json
import re

import pytest
import torch
from helpers import one_line, tiny_dataset, tiny_run
from PIL import Image
from test_study import SMALL
from torch import nn

from study import explorer as page
from study.pages import TEMPLATES
from study.runs import Settings, study_tasks
from vae_core import figures
from vae_core.controls import Controls
from vae_core.evaluation import posterior_statistics
from vae_core.experiment import train_or_load
from vae_core.explorer import explore, own_image, ranked_dimensions
from vae_core.latent import imagine, interpolate, prior_draws
from vae_core.models import MODELS
from vae_core.parameter_sets import ParameterSet

FOUR = ParameterSet("four", batch_size=16, learning_rate=1e-3, latent_dim=4)
HOSTILE = "</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    checkpoints = tmp_path_factory.mktemp("checkpoints")
    return [tiny_run(checkpoints, model=model, params=FOUR) for model in ("conv", "fc")]


@pytest.fixture
def explorer(runs):
    return explore(*runs)


def test_dimensions_are_ranked_by_their_kl(runs):
    model = runs[0].model
    ranked = ranked_dimensions(model, 3)
    kl = posterior_statistics(model, imagine(model, 2000))["kl"]
    assert list(ranked) == kl.argsort(descending=True)[:3].tolist()
    assert list(ranked.values()) == sorted(ranked.values(), reverse=True)
    assert len(ranked_dimensions(model, 99)) == 4


def test_below_two_models_the_images_themselves_are_mixed(runs, monkeypatch):
    rows, draw = {}, figures.strips
    monkeypatch.setattr(
        figures, "strips", lambda given, title: rows.update(given) or draw(given, title)
    )
    explorer = explore(*runs).go(A="image 1", B="image 2")
    explorer._repr_mimebundle_()
    *models, fade = rows.values()
    assert len(models) == 2
    assert torch.equal((fade[[0, -1]] * 255).byte(), explorer.images[1:3])


def test_where_nobody_watches_the_strip_is_the_same_at_every_call(runs):
    bundles = [explore(*runs)._repr_mimebundle_() for _ in range(2)]
    assert bundles[0] == bundles[1] and set(bundles[0]) == {"text/plain", "image/png"}
    z = [prior_draws(runs[0].model, 1, seed)[0] for seed in (0, 1)]
    explorer = explore(*runs)
    way = (interpolate(runs[0].model, *z) * 255).round().byte()
    assert torch.equal(explorer.strip(explorer.name), way)


def test_both_models_are_shown_where_they_encode_the_same_images(explorer, runs):
    assert explorer.shown == [explorer.name]
    assert len(explorer.go(A="image 1", B=" image  2").shown) == 2
    explorer.name = explorer.shown[1]
    assert explorer.shown[0] == explorer.name and explorer.image().shape == (3, 32, 32)
    data = tiny_dataset()
    assert torch.equal(explore(runs[0], dataset=data).images, data.test)


def test_z_is_on_the_way_and_moved(explorer):
    explorer.mix, (dimension, *_) = 0.25, explorer.kl[explorer.name]
    z1, z2 = (prior_draws(explorer.runs[explorer.name].model, 1, seed)[0] for seed in (0, 1))
    assert torch.allclose(explorer.z, 0.75 * z1 + 0.25 * z2)
    explorer.moves[explorer.name][dimension] = 2.0
    assert torch.allclose(explorer.z[dimension], 0.75 * z1[dimension] + 0.25 * z2[dimension] + 2)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK", "I;16", "LA"])
def test_an_image_of_ones_own_in_any_mode(mode, tmp_path, explorer):
    path = tmp_path / "me.tiff"
    Image.new(mode, (50, 70)).save(path)
    assert own_image(str(path), 32).shape == (3, 32, 32)
    assert explorer.go(A=f" {path} ").ends["A"] == "me.tiff"


def test_what_cannot_be_shown_is_one_line_below_the_fields(tmp_path, explorer):
    (tmp_path / "<b>.png").write_text("no image")
    Image.new("1", (9000, 9000)).save(tmp_path / "huge.png")
    given = [tmp_path / "<b>.png", tmp_path / "huge.png", tmp_path, "/nowhere", "image 99", ""]
    given.append("~nobody/x.png")
    controls = Controls(explorer)
    before = dict(explorer.ends), controls.picture.value
    for text in given:
        with pytest.raises(ValueError) as error:
            explorer.go(A=str(text))
        assert len(one_line(error)) < 300
        controls.ends["A"].value = str(text)
        assert "role" in controls.error.value and "<b>" not in controls.error.value
        assert (explorer.ends, controls.picture.value) == before
    with pytest.raises(ValueError) as error:  # of a name too long for a file system
        explorer.go(A="a" * 300)
    one_line(error)
    controls.ends["A"].value = "draw 9"
    assert controls.error.value == "" and controls.picture.value != before[1]


def test_controls_change_the_explorer(explorer):
    threads, controls = torch.get_num_threads(), Controls(explorer)
    seen = [controls.picture.value]

    def changed():
        seen.append(controls.picture.value)
        return seen[-1] not in seen[:-1]

    controls.moves[0][0].value = 2.0
    assert list(explorer.moves[explorer.name].values()) == [2.0, 0, 0, 0] and changed()
    controls.mix[0].value = 0.5
    assert explorer.mix == 0.5 and changed()
    controls.spherical.value = True
    assert explorer.spherical and changed()
    controls.reset.click()
    assert not any(explorer.moves[explorer.name].values()) and changed()
    controls.others.click()
    controls.pick.value = "B"
    controls.draws[2][1].click()
    assert explorer.ends["B"] == "draw 18" and explorer.mix == 1 and changed()
    controls.new.click()
    assert re.fullmatch(r"draw \d+", explorer.ends["B"]) and changed()
    controls.name.value = list(explorer.runs)[1]
    assert explorer.name == controls.name.value and changed()
    assert controls.moves[0][1].description.startswith(
        f"latent {next(iter(explorer.kl[explorer.name]))}"
    )
    explorer.go(A="image 0", B="image 1")
    assert Controls(explorer).picture.value.count("<img alt=") == 3
    assert torch.get_num_threads() == threads


def test_runs_that_cannot_be_explored_together(runs):
    small = dataclasses.replace(runs[0], model=MODELS["fc"](4, (3, 16, 16)))
    for given, said in (((), "no run"), (("conv",), "is no run"), ((runs[0], small), "3×16×16")):
        with pytest.raises(ValueError, match=said) as error:
            explore(*given)
        one_line(error)
    assert len(explore(runs[0], runs[0]).runs) == 2


def with_decoder(run, *layers):
    model = MODELS["fc"](4, (3, 32, 32))
    model.decoder = nn.Sequential(*layers)
    return dataclasses.replace(run, model=model)


def test_a_layer_that_the_page_does_not_know_is_named(runs):
    assert [layer["kind"] for layer in page.layers(runs[0].model)][:2] == ["linear", "reshape"]
    for layer in (nn.Sigmoid(), nn.ConvTranspose2d(8, 3, 3), nn.Linear(4, 5, bias=False)):
        with pytest.raises(ValueError, match=type(layer).__name__) as error:
            page.layers(with_decoder(runs[0], layer).model)
        one_line(error)
    damaged = with_decoder(runs[0], nn.Linear(4, 3072)).model
    with torch.no_grad():
        damaged.decoder[0].weight[0, 0] = torch.inf
    with pytest.raises(ValueError, match="damaged"):
        page.layers(damaged)


def written(path, shown, monkeypatch, capsys):
    """The page of these runs, and what was said."""
    monkeypatch.setattr(page, "_runs", lambda settings, tasks: iter(shown))
    strip = page.write_explorer(Settings(report=path), [], TEMPLATES)
    text = (path / page.PAGE).read_text("utf-8") if strip else ""
    return text, capsys.readouterr().err


def test_the_page_has_what_can_be_decoded_and_says_what_cannot(runs, tmp_path, monkeypatch, capsys):
    named = dataclasses.replace(runs[0], dataset={**runs[0].dataset, "title": HOSTILE})
    odd = with_decoder(runs[1], nn.Sigmoid())
    text, said = written(tmp_path, [named, odd], monkeypatch, capsys)
    assert (
        said.count("\n") == 1 and "Sigmoid" in said and said.startswith("explore.html is without")
    )
    assert HOSTILE not in text and "<img src=x" not in text and not re.search("https?:", text)
    about = json.loads(re.search(r'<script type="application/json".*?>(.*?)</script>', text)[1])
    (model,) = about["models"]
    assert model["data"] == f"{HOSTILE}, this report"
    assert len(model["means"]) == len(about["images"][model["data"]]) == 12
    assert written(tmp_path, [named], monkeypatch, capsys) == (text, "")
    assert written(tmp_path, [odd], monkeypatch, capsys)[0] == ""
    assert not (tmp_path / page.PAGE).exists()


def test_a_reports_own_runs_are_on_its_page(tmp_path):
    settings = Settings(**SMALL, checkpoints=tmp_path, report=tmp_path)
    tasks = study_tasks(settings)
    usual = next(task for task in tasks if task.model == "conv" and "beta" not in task.options)
    run = train_or_load(**usual.arguments, checkpoints=tmp_path)
    assert [found.folder for found in page._runs(settings, tasks)] == [run.folder]
