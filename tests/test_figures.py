from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from vae_core import figures
from vae_core.checkpoints import Run
from vae_core.models import build_model


@pytest.fixture(autouse=True)
def closed_afterwards():
    yield
    plt.close("all")


def shown(figure):
    return [image.get_array() for axis in figure.axes for image in axis.images]


def run(model, params="p1", epochs=3):
    history = [
        {
            "epoch": epoch,
            **{
                f"{part}_{name}": 100.0 / epoch
                for part in ("train", "validation")
                for name in ("loss", "reconstruction", "kl")
            },
        }
        for epoch in range(1, epochs + 1)
    ]
    config = {"model": model, "params": {"name": params}}
    return Run(build_model(model, 2), history, config, {"best_epoch": 2}, {}, Path())


def test_rows_show_each_picture_in_its_place_with_labels():
    pictures = torch.rand(3, 3, 32, 32)
    rows = {"original": pictures, "CVAE": pictures.flip(0)}
    figure = figures.picture_rows(rows, "A title", ["a", "b", "c"])
    images = shown(figure)
    assert len(images) == 6
    np.testing.assert_array_equal(images[0], pictures[0].movedim(0, -1))
    np.testing.assert_array_equal(images[3], pictures[2].movedim(0, -1))
    assert figure.get_suptitle() == "A title"
    assert [axis.get_ylabel() for axis in figure.axes[::3]] == ["original", "CVAE"]
    assert [axis.get_title() for axis in figure.axes[:3]] == ["a", "b", "c"]


def test_grid_leaves_the_places_after_the_last_picture_empty():
    figure = figures.picture_grid(torch.zeros(5, 3, 32, 32, dtype=torch.uint8), "Samples", 3)
    assert len(figure.axes) == 6 and len(shown(figure)) == 5


def test_curves_have_units_a_legend_and_a_dot_at_the_best_epoch():
    figure = figures.loss_curves({"FC-VAE": run("fc"), "CVAE": run("conv")}, "Loss")
    assert len(figure.axes) == 3
    loss = figure.axes[0]
    assert loss.get_ylabel() == "nats per picture" and loss.get_xlabel() == "epoch"
    assert [text.get_text() for text in loss.get_legend().get_texts()] == ["FC-VAE", "CVAE"]
    dots = [line.get_xydata().tolist() for line in loss.lines if line.get_marker() == "o"]
    assert dots == [[[2, 50]], [[2, 50]]]
    assert {line.get_color() for line in loss.lines} == set(figures.COLOURS.values())


def test_curves_of_many_runs_differ_by_line_and_leave_the_first_epoch_out():
    runs = {"p1 CVAE": run("conv"), "p2 CVAE": run("conv", "p2", epochs=8)}
    loss = figures.loss_curves(runs, "Loss", training=False).axes[0]
    lines = [line for line in loss.lines if line.get_marker() != "o"]
    assert [len(line.get_xdata()) for line in lines] == [3, 7]
    assert lines[0].get_linestyle() != lines[1].get_linestyle()
    assert len(figures.loss_curves(runs, "Loss").axes[0].lines) == len(loss.lines) + 2


def test_spectrum_is_sorted():
    figure = figures.kl_spectrum({"sum": torch.tensor([0.1, 3.0, 1.0])}, "KL of each dimension")
    (axis,) = figure.axes
    heights = axis.lines[0].get_ydata()
    assert list(heights) == sorted(heights, reverse=True)
    assert axis.get_yscale() == "log" and "nats" in axis.get_ylabel()
