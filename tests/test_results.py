import math
from pathlib import Path

import pytest
import torch
from helpers import one_line, tiny_dataset, tiny_run

from vae_core.checkpoints import Run
from vae_core.latent import prior_draws, unevenness
from vae_core.models import build_model
from vae_core.results import (
    RESULT_COLUMNS,
    collapse_table,
    early_stopping_table,
    oscillation,
    oscillation_table,
    read_results,
    result,
    results_table,
    spread,
    write_results,
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


def a_result(model="conv", params="p1", seed=0, test=76.0, **others):
    values = {
        "epochs": 3,
        "train_loss": 74.0,
        "test_loss": test,
        "test_reconstruction": test - 20,
        "test_kl": 20.0,
        "oscillation": math.nan,
    }
    return {"model": model, "params": params, "seed": seed, **values, **others}


def test_table_gathers_seeds_and_puts_the_published_numbers_beside():
    results = [a_result(test=76.0), a_result(seed=1, test=78.0), a_result("fc", "mine")]
    cvae, mine = results_table(results).rows
    assert (cvae["set"], cvae["model"], cvae["seeds"]) == ("p1", "CVAE", 2)
    assert str(cvae["test loss"]) == "77.0 ± 1.4"
    assert (str(cvae["reconstruction"]), str(cvae["KL"])) == ("57.0 ± 1.4", "20.0 ± 0.0")
    assert (cvae["published epochs"], cvae["published loss"]) == (18, 74.7)
    assert (mine["model"], mine["published loss"]) == ("FC-VAE", "–")
    assert mine["epochs"] == 3


def test_table_as_text_html_and_markdown():
    picture = torch.zeros(3, 32, 32, dtype=torch.uint8)
    table = results_table([a_result(params="<b>")], [picture])
    assert "74.0" in repr(table) and "data:image" not in repr(table)
    html = table._repr_html_()
    assert "&lt;b&gt;" in html and "<b>" not in html
    assert html.count('<img alt="sample from the prior" src="data:image/png;base64,') == 1
    lines = table.markdown().splitlines()
    assert lines[1].startswith("| --- |") and len({line.count("|") for line in lines}) == 1


def test_a_run_becomes_a_row_that_is_read_as_it_was_written(tmp_path):
    dataset = tiny_dataset()
    trained = tiny_run(tmp_path, dataset, beta=0.5)
    row = result(trained, dataset.test)
    assert list(row) == list(RESULT_COLUMNS)
    assert (row["dataset"], row["params"], row["beta"], row["epochs"]) == ("tiny", "tiny", 0.5, 2)
    assert row["test_kl"] == pytest.approx(trained.summary["test"]["kl"], abs=1e-4)
    assert row["train_loss"] == pytest.approx(
        min(e["train_loss"] for e in trained.history), abs=1e-4
    )
    assert 0 <= row["active_dimensions"] <= 2 and row["rounding"] is None
    ends = (prior_draws(trained.model, 50, seed) for seed in (1, 2))
    uneven = unevenness(trained.model, *ends).mean().item()
    assert row["unevenness"] == pytest.approx(uneven, abs=1e-3) and uneven > 1.001
    path = tmp_path / "results.csv"
    write_results(path, [row, row | {"seed": 1, "oscillation": 0.25, "rounding": -0.001}])
    first, second = read_results(path)
    assert math.isnan(first.pop("oscillation")) and math.isnan(row.pop("oscillation"))
    assert first == row
    assert (second["oscillation"], second["rounding"]) == (0.25, -0.001)


GOOD = dict.fromkeys(RESULT_COLUMNS, "74") | {"dataset": "tiny", "model": "conv"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train_loss": "seven"}, "line 2: .*seven"),
        ({"train_loss": ""}, "line 2: train_loss is empty"),
        ({"test_kl": "nan"}, "line 2: test_kl is nan"),
        ({"model": "cnv"}, "line 2: unknown model 'cnv'"),
        ({"processor": ""}, "line 2: processor is empty"),
    ],
)
def test_a_value_that_cannot_be_is_named_with_its_line(tmp_path, changes, said):
    path = tmp_path / "results.csv"
    write_results(path, [GOOD | changes])
    with pytest.raises(ValueError, match=f"results.csv, {said}"):
        read_results(path)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda lines: lines[:1], "has no results"),
        (lambda lines: [], "has no results"),
        (
            lambda lines: [lines[0].replace(b"epochs", b"epoch"), *lines[1:]],
            "line 2: no 'max_epochs'",
        ),
        (lambda lines: [lines[0], lines[1][:-4]], "line 2: too many or too few"),
        (lambda lines: [*lines, lines[1]], "line 3: the same run"),
        (lambda lines: [lines[0], b'"' + lines[1]], "unexpected end of data"),
        (lambda lines: [lines[0], b"\xff\xfe" + lines[1].replace(b"conv", b"\xff")], "line 2: "),
    ],
)
def test_a_damaged_table_is_one_clear_line(tmp_path, damage, said):
    path = tmp_path / "results.csv"
    write_results(path, [GOOD])
    path.write_bytes(b"".join(damage(path.read_bytes().splitlines(keepends=True))))
    with pytest.raises(ValueError, match=said) as error:
        read_results(path)
    assert "results.csv" in one_line(error)


def test_no_table_at_all(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none.csv does not exist; make study"):
        read_results(tmp_path / "none.csv")


def test_collapse_is_measured_with_one_ruler():
    torch.manual_seed(0)
    dead, alive = build_model("conv", 2), build_model("conv", 2)
    with torch.no_grad():
        for weight in (*dead.to_mu.parameters(), *dead.to_logvar.parameters()):
            weight.zero_()
        alive.to_mu.weight.mul_(1000)
    pictures = tiny_dataset().test
    dead_row, alive_row = collapse_table({"dead": dead, "alive": alive}, pictures).rows
    assert (dead_row["KL"], dead_row["active dimensions"]) == ("0.0", "0 of 2")
    assert float(alive_row["KL"]) > 1 and alive_row["active dimensions"] == "2 of 2"
    error = (dead.reconstruct(pictures / 255) - pictures / 255).square().sum() / len(pictures)
    assert float(dead_row["squared error"]) == pytest.approx(float(error), rel=0.1)


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
    steep = [{"validation_loss": loss} for loss in (900.0, 100.0, 700.0, 300.0)]
    assert oscillation([*steep, *straight]) == pytest.approx(0)


def test_tables_of_oscillation_and_early_stopping():
    still = run(losses=(80.0, 75.0, 75.0, 74.9, 74.9, 74.9, 74.9, 74.9))
    still.history[2]["validation_loss"] = 70.0
    (row,) = early_stopping_table([still]).rows
    assert row["stop by train"] == 7
    assert row["stop by validation"] == 8
    assert row["validation loss kept by validation"] == "70.0"
    assert row["validation loss kept by train"] == "75.9"


def test_oscillation_is_averaged_over_the_runs_that_are_long_enough():
    results = [
        a_result(seed=seed, oscillation=value) for seed, value in enumerate((0.2, 0.4, math.nan))
    ]
    measured, short = oscillation_table([*results, a_result("fc")]).rows
    assert (measured["runs"], measured["oscillation"]) == (2, "0.30 ± 0.14")
    assert (short["model"], short["runs"], short["oscillation"]) == ("FC-VAE", 0, "–")
