import numpy as np
import pytest
import torch
from helpers import tiny_dataset, tiny_run

from vae_core import figures
from vae_core.models import MODELS


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder, dataset = tmp_path_factory.mktemp("runs"), tiny_dataset()
    return {MODELS[name].title: tiny_run(folder, dataset, name) for name in ("fc", "conv")}


def drawn_images(figure):
    return [image.get_array() for axis in figure.axes for image in axis.images]


def test_rows_draw_each_image_in_its_place_with_labels():
    images = torch.rand(3, 3, 32, 32)
    rows = {"original": images, "CVAE": images.flip(0)}
    figure = figures.image_rows(rows, "A title", ["a", "b", "c"])
    drawn = drawn_images(figure)
    assert len(drawn) == 6
    np.testing.assert_array_equal(drawn[0], images[0].movedim(0, -1))
    np.testing.assert_array_equal(drawn[3], images[2].movedim(0, -1))
    assert figure.get_suptitle() == "A title"
    assert [axis.get_ylabel() for axis in figure.axes[::3]] == ["original", "CVAE"]
    assert [axis.get_title() for axis in figure.axes[:3]] == ["a", "b", "c"]


def test_a_grid_leaves_the_places_after_the_last_image_empty():
    figure = figures.image_grid(torch.zeros(5, 3, 32, 32, dtype=torch.uint8), "Samples", 3)
    assert len(figure.axes) == 6 and len(drawn_images(figure)) == 5


def test_reconstructions_samples_and_interpolations_are_one_call(runs):
    models = {name: run.model for name, run in runs.items()}
    images = tiny_dataset().test[:4]
    originals = drawn_images(figures.reconstructions(models, images, "Reconstructions"))
    np.testing.assert_array_equal(originals[0], images[0].movedim(0, -1))
    assert len(originals) == 3 * 4
    assert len(drawn_images(figures.samples(models, "Samples", n=5))) == 2 * 5
    figure = figures.interpolations(models, "Walks", pairs=2)
    assert len(drawn_images(figure)) == 2 * 2 * 10
    assert [axis.get_title() for axis in figure.axes[:10:9]] == ["α = 0.00", "α = 1.00"]


def test_curves_have_units_a_legend_and_a_dot_at_the_best_epoch(runs):
    figure = figures.loss_curves(runs, "Loss")
    loss = figure.axes[0]
    assert len(figure.axes) == 3
    assert loss.get_ylabel() == "nats per image" and loss.get_xlabel() == "epoch"
    assert [text.get_text() for text in loss.get_legend().get_texts()] == ["FC-VAE", "CVAE"]
    dots = [line.get_xdata().tolist() for line in loss.lines if line.get_marker() == "o"]
    assert dots == [[run.summary["best_epoch"]] for run in runs.values()]
    assert {line.get_color() for line in loss.lines} == {run.model.colour for run in runs.values()}
    assert len(figures.loss_curves(runs, "Loss", training=False).axes[0].lines) == 4


def test_the_spectrum_is_sorted_and_seeds_have_their_interval():
    (axis,) = figures.kl_spectrum({"sum": torch.tensor([0.1, 3.0, 1.0])}, "KL").axes
    heights = axis.lines[0].get_ydata()
    assert list(heights) == sorted(heights, reverse=True)
    assert axis.get_yscale() == "log" and "nats" in axis.get_ylabel()
    _, axes = figures.panels(1, "Seeds", (4, 4))
    figures.seed_dots(axes[0, 0], 1.0, [1.0, 2.0, 3.0], "conv")
    assert list(axes[0, 0].lines[0].get_ydata()) == [1.0, 2.0, 3.0]
    (bar,) = axes[0, 0].containers[0].lines[2]
    assert bar.get_segments()[0][:, 1] == pytest.approx([2 - 2.484, 2 + 2.484], abs=1e-3)
