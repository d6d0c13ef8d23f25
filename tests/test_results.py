import math
from pathlib import Path

import pytest
import torch

from vae_core.checkpoints import Run
from vae_core.models import build_model
from vae_core.results import (
    early_stopping_table,
    oscillation,
    oscillation_table,
    results_table,
    spread,
)


def run(model="conv", params="p1", seed=0, losses=(80.0, 75.0, 74.0), test=76.0):
    history = [
        {"epoch": epoch, "train_loss": loss, "validation_loss": loss + 1}
        for epoch, loss in enumerate(losses, start=1)
    ]
    config = {
        "model": model,
        "params": {"name": params},
        "seed": seed,
        "patience": 5,
        "min_delta": 0.5,
    }
    summary = {
        "epochs": len(losses),
        "best_epoch": len(losses),
        "train": {"loss": min(losses)},
        "test": {"loss": test},
    }
    return Run(build_model(model, 2), history, config, summary, {}, Path())


def test_spread_over_seeds():
    assert spread([3.0]) == (3.0, None)
    assert str(spread([3.0])) == "3.0"
    assert spread([1.0, 2.0, 3.0]) == (2.0, 1.0)
    assert str(spread([1.0, 2.0, 3.0])) == "2.0 ± 1.0"


def test_table_gathers_seeds_and_puts_the_published_numbers_beside():
    runs = [run(seed=0, test=76.0), run(seed=1, test=78.0), run("fc", "mine")]
    cvae, mine = results_table(runs).rows
    assert (cvae["set"], cvae["model"], cvae["seeds"]) == ("p1", "CVAE", 2)
    assert str(cvae["test loss"]) == "77.0 ± 1.4"
    assert (cvae["published epochs"], cvae["published loss"]) == (18, 74.7)
    assert (mine["model"], mine["published loss"]) == ("FC-VAE", "–")
    assert mine["epochs"] == 3


def test_table_as_text_html_and_markdown():
    picture = torch.zeros(3, 32, 32, dtype=torch.uint8)
    table = results_table([run(params="<b>")], [picture])
    assert "74.0" in repr(table) and "data:image" not in repr(table)
    html = table._repr_html_()
    assert "&lt;b&gt;" in html and "<b>" not in html
    assert html.count('<img alt="sample from the prior" src="data:image/png;base64,') == 1
    lines = table.markdown().splitlines()
    assert lines[1].startswith("| --- |") and len({line.count("|") for line in lines}) == 1


def test_oscillation_estimates_the_jumps_whatever_the_slope():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(3000, generator=generator) * 0.7
    history = [
        {"validation_loss": 100 - 0.01 * epoch + jump} for epoch, jump in enumerate(noise.tolist())
    ]
    assert oscillation(history) == pytest.approx(0.7, rel=0.05)
    straight = [{"validation_loss": 100 - 2.0 * epoch} for epoch in range(20)]
    assert oscillation(straight) == pytest.approx(0)
    assert math.isnan(oscillation(straight[:14]))


def test_tables_of_oscillation_and_early_stopping():
    still = run(losses=(80.0, 75.0, 75.0, 74.9, 74.9, 74.9, 74.9, 74.9))
    still.history[2]["validation_loss"] = 70.0
    (row,) = early_stopping_table([still]).rows
    assert row["stop by train"] == 7
    assert row["stop by validation"] == 8
    assert row["validation loss kept by validation"] == "70.0"
    assert row["validation loss kept by train"] == "75.9"
    long = run(losses=[80.0, 70.0] * 10)
    short, jumping = oscillation_table([still, long]).rows
    assert short["oscillation"] == "–"
    assert float(jumping["oscillation"]) == pytest.approx(20 / 6**0.5, abs=0.01)
