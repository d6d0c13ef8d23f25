"""The explorer: what it shows, its widgets, and its page."""

import dataclasses
import json
import re

import matplotlib.pyplot as plt
import pytest
import torch
from helpers import one_line, tiny_dataset, tiny_run
from PIL import Image
from torch import nn

from vae_core.config import ParameterSet
from vae_core.evaluation import posterior_statistics
from vae_core.explorer import explore, top_latents
from vae_core.explorer.page import PAGE, describe_layers, write_explorer_page
from vae_core.explorer.state import load_image
from vae_core.explorer.widgets import ExplorerWidgets
from vae_core.latent import generate, interpolate, prior_samples
from vae_core.models import MODELS
from vae_core.runs import train_or_load
from vae_study.explorer_runs import explorer_runs
from vae_study.settings import Settings
from vae_study.tasks import study_tasks

FOUR = ParameterSet("four", batch_size=16, learning_rate=1e-3, latent_dim=4)
HOSTILE = "</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    checkpoints = tmp_path_factory.mktemp("checkpoints")
    return [tiny_run(checkpoints, model=model, params=FOUR) for model in ("conv", "fc")]


@pytest.fixture
def explorer(runs):
    return explore(*runs)


def test_latents_are_ranked_by_their_kl(runs):
    model = runs[0].model
    ranked = top_latents(model, 3)
    kl = posterior_statistics(model, generate(model, 2000))["kl"]
    assert list(ranked) == kl.argsort(descending=True)[:3].tolist()
    assert list(ranked.values()) == sorted(ranked.values(), reverse=True)
    assert len(top_latents(model, 99)) == 4


def test_below_two_models_is_the_cross_fade_of_the_images(explorer):
    explorer.set_ends(A="image 1", B="image 2")
    figure = explorer.static_figure()
    plt.close(figure)
    assert len(figure.axes) == (2 + 1) * 10
    assert torch.equal((explorer.cross_fade()[[0, -1]] * 255).byte(), explorer.images[1:3])


def test_without_a_person_the_strip_is_the_same_at_every_call(runs):
    bundles = [explore(*runs)._repr_mimebundle_() for _ in range(2)]
    assert bundles[0] == bundles[1] and set(bundles[0]) == {"text/plain", "image/png"}
    z = [prior_samples(runs[0].model, 1, seed)[0] for seed in (0, 1)]
    explorer = explore(*runs)
    path = (interpolate(runs[0].model, *z) * 255).round().byte()
    assert torch.equal(explorer.strip(explorer.name), path)


def test_both_models_are_shown_where_they_encode_the_same_images(explorer, runs):
    assert explorer.visible_runs == [explorer.name]
    assert len(explorer.set_ends(A="image 1", B=" image  2").visible_runs) == 2
    explorer.name = explorer.visible_runs[1]
    assert explorer.visible_runs[0] == explorer.name and explorer.image().shape == (3, 32, 32)
    data = tiny_dataset()
    assert torch.equal(explore(runs[0], dataset=data).images, data.test)


def test_the_latents_are_on_the_path_with_the_offsets_added(explorer):
    explorer.alpha = 0.25
    dimension = next(iter(explorer.kl[explorer.name]))
    z1, z2 = (prior_samples(explorer.runs[explorer.name].model, 1, seed)[0] for seed in (0, 1))
    assert torch.allclose(explorer.z, 0.75 * z1 + 0.25 * z2)
    explorer.offsets[explorer.name][dimension] = 2.0
    assert torch.allclose(explorer.z[dimension], 0.75 * z1[dimension] + 0.25 * z2[dimension] + 2)


def test_an_image_file_may_be_an_end(tmp_path, explorer):
    path = tmp_path / "me.tiff"
    Image.new("CMYK", (50, 70)).save(path)
    assert load_image(str(path), 32).shape == (3, 32, 32)
    assert explorer.set_ends(A=f" {path} ").ends["A"].label == "me.tiff"


def test_the_older_name_of_a_sample_is_understood(explorer):
    explorer.set_ends(A="draw 4", B="sample 4")
    explorer.alpha = 0.0
    at_a = explorer.z
    explorer.alpha = 1.0
    assert torch.equal(at_a, explorer.z)


def test_what_cannot_be_shown_is_one_line_below_the_fields(tmp_path, explorer):
    (tmp_path / "<b>.png").write_text("no image")
    Image.new("1", (9000, 9000)).save(tmp_path / "huge.png")
    given = [tmp_path / "<b>.png", tmp_path / "huge.png", tmp_path, "/nowhere", "image 99", ""]
    given.append("~nobody/x.png")
    controls = ExplorerWidgets(explorer)
    before = dict(explorer.ends), controls.picture.value
    for text in given:
        with pytest.raises(ValueError) as error:
            explorer.set_ends(A=str(text))
        assert len(one_line(error)) < 300
        controls.ends["A"].value = str(text)
        assert "role" in controls.error.value and "<b>" not in controls.error.value
        assert (explorer.ends, controls.picture.value) == before
    with pytest.raises(ValueError) as error:  # of a name too long for a file system
        explorer.set_ends(A="a" * 300)
    one_line(error)
    controls.ends["A"].value = "sample 9"
    assert controls.error.value == "" and controls.picture.value != before[1]


def test_the_widgets_change_the_explorer(explorer):
    threads, controls = torch.get_num_threads(), ExplorerWidgets(explorer)
    seen = [controls.picture.value]

    def changed():
        seen.append(controls.picture.value)
        return seen[-1] not in seen[:-1]

    controls.offsets[0].slider.value = 2.0
    assert list(explorer.offsets[explorer.name].values()) == [2.0, 0, 0, 0] and changed()
    controls.alpha.slider.value = 0.5
    assert explorer.alpha == 0.5 and changed()
    controls.spherical.value = True
    assert explorer.spherical and changed()
    controls.reset.click()
    assert not any(explorer.offsets[explorer.name].values()) and changed()
    controls.other_samples.click()
    controls.choose_for.value = "B"
    controls.tiles[2].button.click()
    assert explorer.ends["B"].label == "sample 18" and explorer.alpha == 1 and changed()
    controls.new_sample.click()
    assert re.fullmatch(r"sample \d+", explorer.ends["B"].label) and changed()
    controls.model.value = list(explorer.runs)[1]
    assert explorer.name == controls.model.value and changed()
    assert controls.offsets[0].number.description.startswith(
        f"latent {next(iter(explorer.kl[explorer.name]))}"
    )
    explorer.set_ends(A="image 0", B="image 1")
    assert ExplorerWidgets(explorer).picture.value.count("<img alt=") == 3
    assert torch.get_num_threads() == threads


def test_runs_that_cannot_be_explored_together(runs):
    small = dataclasses.replace(runs[0], model=MODELS["fc"](4, (3, 16, 16)))
    for given, message in (((), "no run"), (("conv",), "is no run"), ((runs[0], small), "3×16×16")):
        with pytest.raises(ValueError, match=message) as error:
            explore(*given)
        one_line(error)
    assert len(explore(runs[0], runs[0]).runs) == 2


def with_decoder(run, *layers):
    model = MODELS["fc"](4, (3, 32, 32))
    model.decoder = nn.Sequential(*layers)
    return dataclasses.replace(run, model=model)


def test_a_layer_that_the_page_does_not_know_is_named(runs):
    layers = describe_layers(runs[0].model)
    assert [layer["type"] for layer in layers][:2] == ["linear", "reshape"]
    for layer in (nn.Sigmoid(), nn.ConvTranspose2d(8, 3, 3), nn.Linear(4, 5, bias=False)):
        with pytest.raises(ValueError, match=type(layer).__name__) as error:
            describe_layers(with_decoder(runs[0], layer).model)
        one_line(error)
    damaged = with_decoder(runs[0], nn.Linear(4, 3072)).model
    with torch.no_grad():
        damaged.decoder[0].weight[0, 0] = torch.inf
    with pytest.raises(ValueError, match="damaged"):
        describe_layers(damaged)


def test_the_page_holds_what_can_be_decoded_and_names_the_rest(runs, tmp_path, capsys):
    path = tmp_path / PAGE
    named = dataclasses.replace(runs[0], dataset={**runs[0].dataset, "title": HOSTILE})
    odd = with_decoder(runs[1], nn.Sigmoid())
    assert write_explorer_page(path, [named, odd])
    text, message = path.read_text("utf-8"), capsys.readouterr().err
    assert message.count("\n") == 1
    assert "Sigmoid" in message
    assert HOSTILE not in text
    assert "<img src=x" not in text
    assert not re.search("https?:", text)
    about = json.loads(re.search(r'<script type="application/json".*?>(.*?)</script>', text)[1])
    (model,) = about["models"]
    assert model["data"] == f"{HOSTILE}, this report"
    assert len(model["means"]) == len(about["images"][model["data"]]) == 12
    assert write_explorer_page(path, [named, named])
    assert path.read_text("utf-8") == text
    assert capsys.readouterr().err == ""
    assert write_explorer_page(path, [odd]) == ""
    assert not path.exists()


def test_a_reports_own_runs_are_on_its_page(tmp_path):
    settings = Settings(
        max_epochs=1, limit=64, precision="float32", sets=("p1",), checkpoints=tmp_path
    )
    tasks = study_tasks(settings)
    task = next(task for task in tasks if task.model == "conv" and "beta" not in task.options)
    run = train_or_load(**task.arguments, checkpoints=tmp_path)
    assert [shown.folder for shown in explorer_runs(settings, tasks)] == [run.folder]
