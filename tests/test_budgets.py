import math

import numpy as np
import pandas as pd
import pytest

from vae_study.budgets import (
    TUNING_SEED,
    dataset_option,
    equal_budgets_table,
    ladder_figure,
    losses_by_permutation,
    on_full_images,
    tuned_runs,
)

EQUAL_COST = {"conv": 1.0, "fc": 1.0}


def row(model, seed, epochs, learning_rate, validation_loss, test_loss=None):
    return {
        "dataset": "images",
        "model": model,
        "seed": seed,
        "epochs": epochs,
        "learning_rate": learning_rate,
        "beta": 1.0,
        "validation_loss": validation_loss,
        "test_loss": validation_loss if test_loss is None else test_loss,
    }


@pytest.fixture
def frame():
    """Runs of two models: three rates tried at the smaller of two budgets, then three seeds."""
    rows = []
    for model, best_rate, level in (("conv", 2e-3, 74.0), ("fc", 5e-4, 80.0)):
        for rate in (5e-4, 1e-3, 2e-3):
            loss = level if rate == best_rate else level + 5.0
            # By the test loss, the choice would be another.
            rows.append(row(model, TUNING_SEED, 8, rate, loss, test_loss=99.0 - loss))
        for epochs in (8, 16):
            for seed, noise in enumerate((-0.3, 0.0, 0.3)):
                rows.append(row(model, seed, epochs, best_rate, level - epochs / 8 + noise))
    return pd.DataFrame(rows)


def test_the_rate_is_chosen_by_validation_and_the_tuning_runs_are_left_out(frame):
    other_beta = frame.assign(beta=0.1, learning_rate=8e-3, validation_loss=0.0)
    runs = tuned_runs(pd.concat([frame, other_beta]))
    assert len(runs) == 12 and TUNING_SEED not in set(runs["seed"])
    assert runs.groupby("model")["learning_rate"].unique().to_dict() == {"conv": 2e-3, "fc": 5e-4}


def test_models_are_compared_at_equal_cost(frame):
    # Processor "a" trained both, in one minute an epoch and in two; "b" trained only one of them.
    runs = tuned_runs(frame).assign(processor="a")
    runs["seconds_per_epoch"] = np.where(runs["model"] == "fc", 120.0, 60.0)
    runs.loc[(runs["model"] == "fc") & (runs["seed"] == 0), "processor"] = "b"
    table = equal_budgets_table(runs, EQUAL_COST, "steps")
    assert table["CVAE, epochs"].tolist() == table["FC-VAE, epochs"].tolist() == [8, 16]
    assert table["steps"].tolist() == ["8", "16"]
    assert table["CVAE, loss"].tolist() == ["73.0 ± 0.3", "72.0 ± 0.3"]
    assert table["minutes, a"].tolist() == ["8.0 and 16.0", "16.0 and 32.0"]
    assert "minutes, b" not in table
    assert table["difference"][0].mean == pytest.approx(6) and set(table["seeds"]) == {3}
    one_conv = runs[(runs["seed"] == 0) | (runs["model"] == "fc")]
    table = equal_budgets_table(one_conv, EQUAL_COST, "steps")
    assert math.isinf(table["difference"][0].half_width) and table["seeds"][0] == "1 and 3"
    assert equal_budgets_table(runs[runs["model"] == "fc"], EQUAL_COST, "steps").empty


@pytest.mark.parametrize(
    ("cost", "epochs"), [(1.85, [[8, 16]]), (2.15, [[8, 16]]), (1.7, []), (2.3, []), (9.0, [])]
)
def test_budgets_within_a_tenth_are_equal(frame, cost, epochs):
    """Where an epoch of the CVAE costs twice as much, its 8 epochs are the FC-VAE's 16."""
    runs = tuned_runs(frame).assign(processor="a", seconds_per_epoch=60.0)
    table = equal_budgets_table(runs, {"conv": cost, "fc": 1.0}, "steps")
    assert table[["CVAE, epochs", "FC-VAE, epochs"]].to_numpy().tolist() == epochs


def test_runs_on_permuted_and_on_few_images_are_told_from_the_others(frame):
    names = ["images-0a1b", "images-permuted1.0", "images-fraction0.02", "images-permuted0.25"]
    runs = pd.concat([frame.assign(dataset=name) for name in names])
    assert set(on_full_images(runs)["dataset"]) == {"images-0a1b"}
    shares = dataset_option(runs, "permuted")
    assert set(shares.dropna()) == {0.25, 1.0}
    losses = losses_by_permutation(tuned_runs(runs))
    assert losses.index.tolist() == ["fc", "conv"]
    assert losses.columns.tolist() == [0.0, 0.25, 1.0]
    assert losses.loc["conv", 1.0] == pytest.approx([72.7, 73.0, 73.3])
    in_order, permuted = ladder_figure(losses, 76.1, "some images").axes
    for axis in (in_order, permuted):
        labels = [text.get_text() for text in axis.get_xticklabels()]
        assert labels == ["FC-VAE", "CVAE"]
        assert axis.lines[0].get_ydata().tolist() == pytest.approx([78.7, 79.0, 79.3])
