import math
import re

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import one_line, tiny_dataset

from vae_core.tables import (
    BOTH,
    COLUMNS,
    LOWER_LOSS,
    TUNING,
    Interval,
    at_equal_budgets,
    claims_table,
    holm,
    interval,
    oscillation,
    read_results,
    result,
    results_table,
    tuned,
    with_the_studys_loss,
    write_results,
)


def row(model="conv", params="p1", seed=0, test_loss=76.0, **others):
    losses = {"train_loss": 74.0, "test_reconstruction": test_loss - 20, "test_kl": 20.0}
    named = {"model": model, "params": params, "seed": seed, "test_loss": test_loss}
    usual = {"epochs": 20, "oscillation": 0.5, "beta": 1, "reduction": "sum"}
    return named | losses | usual | {"schedule": "constant"} | others


def claims(rows):
    table = claims_table(pd.DataFrame(rows)).reset_index()
    return {entry["measured (nats or epochs)"]: entry for entry in table.to_dict("records")}


def test_interval_of_student_and_its_verdict():
    found = interval([1.0, 2.0, 3.0])
    assert found.mean == 2 and found.half == pytest.approx(4.303 / math.sqrt(3), rel=1e-3)
    assert interval([5.0]).half == math.inf and str(interval([5.0])) == "5.0"
    assert str(interval([0.1, 0.3])) == "0.20 ± 1.27"
    assert interval([1.0, 1.1, 0.9]).verdict == "holds"
    assert interval([-1.0, -1.1, -0.9]).verdict == "does not hold"
    assert interval([1.0, -1.0, 2.0]).verdict == "not shown"
    assert interval([9.0]).verdict == "open: one seed"


def test_asking_often_asks_for_more():
    p = [0.01, 0.04, 0.03, 0.5]
    found = [one.p for one in holm([Interval(1.0, 0.5, value) for value in p])]
    assert found == pytest.approx([0.04, 0.09, 0.09, 0.5])
    falls = {"p1": (1.0, 1.2, 1.6), "p2": (-1.0, 0.0, 1.0), "p3": (-2.0, 0.0, 2.0)}
    several = claims(
        row(model, params, seed, 80.0 + fall * (model == "fc"))
        for params, three in falls.items()
        for seed, fall in enumerate(three)
        for model in BOTH
    )["p1: test loss, FC-VAE − CVAE"]
    assert several["difference"].mean > several["difference"].half
    assert several["verdict"] == "not shown"


def test_models_and_sets_are_compared_seed_by_seed():
    losses = {"p1": (74, 83), "p2": (75, 78), "p3": (74, 80)}
    jumps = {"p1": 0.9, "p2": 0.4, "p3": 0.4}
    found = claims(
        row(model, name, k, loss + k * shared, epochs=20 + k, oscillation=jumps[name])
        for name, pair in losses.items()
        for model, loss, shared in zip(("conv", "fc"), pair, (10.0, 10.1), strict=True)
        for k in (0, 1, 2)
    )
    lower, earlier = (found[f"p1: {of}, FC-VAE − CVAE"] for of in ("test loss", "epochs"))
    assert lower["claim"] == LOWER_LOSS and lower["seeds"] == 3 and lower["verdict"] == "holds"
    assert lower["difference"].mean == pytest.approx(9.1)
    assert earlier["difference"].mean == 0 and earlier["verdict"] == "not shown"
    stable = found["largest − smallest test loss of the sets, FC-VAE − CVAE"]
    assert stable["difference"].mean == pytest.approx(4) and stable["verdict"] == "holds"
    assert found["oscillation of the CVAE, p1 − p2"]["difference"].mean == pytest.approx(0.5)
    assert len(found) == 3 + 3 + 2 + 1 + 2


def test_claims_without_numbers_are_left_out():
    assert claims([row("conv", "p1", 0)]) == {}
    found = claims([row("fc", "p1"), row("fc", "p2", oscillation=math.nan), row("fc", "p2", 1)])
    assert list(found) == ["test loss of the FC-VAE, p1 − p2"]


def test_the_table_gathers_seeds_and_puts_the_published_numbers_beside():
    rows = [row(test_loss=76.0), row(seed=1, test_loss=78.0), row("fc", "mine")]
    rows += [row(seed=2, beta=4), row(seed=2, reduction="mean")]
    rows += [row(seed=2, schedule="cosine")]
    table = results_table(with_the_studys_loss(pd.DataFrame(rows)))
    cvae, mine = table.loc["p1", "CVAE"], table.loc["mine", "FC-VAE"]
    assert (cvae["seeds"], cvae["test loss"], cvae["KL"]) == (2, "77.0 ± 1.4", "20.0 ± 0.0")
    assert (cvae["published epochs"], cvae["published loss"]) == (18, 74.7)
    assert mine["published loss"] == "–" and mine["epochs"] == "20.0"


def budgets():
    """Runs of two models: three rates tried at the smaller of two budgets, then three seeds."""
    rows = []
    for model, best, level in (("conv", 2e-3, 74.0), ("fc", 5e-4, 80.0)):
        own = {"dataset": "images", "model": model}
        for rate in (5e-4, 1e-3, 2e-3):
            worse = level + 5.0 * (rate != best)
            tried = {"seed": TUNING, "epochs": 8, "learning_rate": rate}
            # What the test images would say is not asked.
            rows.append(row(test_loss=99.0 - worse, validation_loss=worse, **own | tried))
        for epochs in (8, 16):
            for seed, noise in enumerate((-0.3, 0.0, 0.3)):
                asked = {"seed": seed, "epochs": epochs, "learning_rate": best}
                loss = level - epochs / 8 + noise
                rows.append(row(test_loss=loss, validation_loss=loss, **own | asked))
    return pd.DataFrame(rows)


def test_the_rate_is_chosen_by_validation_and_the_runs_that_told_it_are_left_out():
    priced = budgets().assign(beta=0.1, learning_rate=8e-3, validation_loss=0.0)
    chosen = tuned(pd.concat([budgets(), priced]))
    assert len(chosen) == 12 and TUNING not in set(chosen["seed"])
    assert chosen.groupby("model")["learning_rate"].unique().to_dict() == {"conv": 2e-3, "fc": 5e-4}


def test_models_are_compared_at_equal_cost():
    # "a" has trained both, in a minute and in two an epoch; "b" has trained only one of them.
    runs = tuned(budgets()).assign(processor="a")
    runs["seconds_per_epoch"] = np.where(runs["model"] == "fc", 120.0, 60.0)
    runs.loc[(runs["model"] == "fc") & (runs["seed"] == 0), "processor"] = "b"
    table = at_equal_budgets(runs, {"conv": 1.0, "fc": 1.0}, "steps")
    assert all(table[f"{of}, epochs"].tolist() == [8, 16] for of in ("CVAE", "FC-VAE"))
    assert table["steps"].tolist() == ["8", "16"]
    assert table["CVAE, loss"].tolist() == ["73.0 ± 0.3", "72.0 ± 0.3"]
    assert table["minutes, a"].tolist() == ["8.0 and 16.0", "16.0 and 32.0"]
    assert "minutes, b" not in table
    found = table["difference"][0]
    # Welch's t with equal spreads and 3 + 3 seeds: 2.776 * sqrt(2 * 0.09 / 3)
    assert found.mean == pytest.approx(6) and found.half == pytest.approx(0.680, abs=1e-3)
    assert found.verdict == "holds" and set(table["seeds"]) == {3}
    alone = runs[(runs["seed"] == 0) | (runs["model"] == "fc")]
    alone = at_equal_budgets(alone, {"conv": 1.0, "fc": 1.0}, "steps")
    assert math.isinf(alone["difference"][0].half) and alone["seeds"][0] == "1 and 3"
    # Where the CVAE's epoch costs twice as much, its 8 are the FC-VAE's 16, give or take a tenth.
    for cost in (1.85, 2.15):
        dearer = at_equal_budgets(runs, {"conv": cost, "fc": 1.0}, "steps")
        assert dearer[["CVAE, epochs", "FC-VAE, epochs"]].to_numpy().tolist() == [[8, 16]]
    for cost in (1.7, 2.3, 9.0):
        assert at_equal_budgets(runs, {"conv": cost, "fc": 1.0}, "steps").empty
    assert at_equal_budgets(runs[runs["model"] == "fc"], {"conv": 1.0, "fc": 1.0}, "steps").empty


def test_a_run_becomes_a_row_that_is_read_as_it_was_written(trained, tmp_path):
    first = result(trained, tiny_dataset())
    assert list(first) == COLUMNS and 0 <= first["active_dimensions"] <= 2
    named = first["dataset"], first["title"], first["max_epochs"]
    assert named == (trained.dataset["folder"], "tiny", 2)
    assert first["test_kl"] == pytest.approx(trained.summary["test"]["kl"], abs=1e-4)
    path = tmp_path / "results.csv"
    # A run may diverge without leaving the numbers of a computer.
    wild = first | {"seed": 1, "oscillation": math.inf, "test_loss": 1e38, "rounding": -0.001}
    write_results(path, [first, wild])
    found = read_results(path).to_dict("records")
    for name, value in first.items():
        missing = value is None or (isinstance(value, float) and math.isnan(value))
        assert math.isnan(found[0][name]) if missing else found[0][name] == value, name
    assert found[1]["oscillation"] == math.inf and found[1]["rounding"] == -0.001


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda text: "", "No columns"),
        (lambda text: text.splitlines()[0] + "\n", "no results"),
        (lambda text: text.replace("epochs", "epoch"), "column max_epochs is missing"),
        (lambda text: text + text.splitlines()[1] + "\n", "twice"),
        (lambda text: text.replace("conv", "cnv"), "unknown model 'cnv'"),
        (lambda text: text.replace(",2,", ",two,"), "two"),
        (lambda text: text.replace("conv", ""), "which run it is"),
        (lambda text: re.sub(r",2,2,[12],", ",2,2,,", text), "NA"),  # no best epoch
        (lambda text: "\xff\xfe\x00" + text, "column dataset is missing"),
    ],
)
def test_a_damaged_table_is_one_clear_line(trained, tmp_path, damage, said):
    path = tmp_path / "results.csv"
    write_results(path, [result(trained)])
    path.write_text(damage(path.read_text()))
    with pytest.raises(ValueError, match=said) as error:
        read_results(path)
    assert "results.csv" in one_line(error)


def test_no_table_at_all(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none.csv does not exist; make study"):
        read_results(tmp_path / "none.csv")


def test_oscillation_estimates_the_jumps_whatever_the_slope():
    noise = 0.7 * torch.randn(3000, generator=torch.Generator().manual_seed(0)).numpy()
    history = [{"validation_loss": loss} for loss in 100 - 0.01 * np.arange(3000) + noise]
    assert oscillation(history) == pytest.approx(0.7, rel=0.05)
    straight = [{"validation_loss": 100 - 2.0 * epoch} for epoch in range(20)]
    assert oscillation(straight) == pytest.approx(0)
    assert math.isnan(oscillation(straight[:14]))
    steep = [{"validation_loss": loss} for loss in (900.0, 100.0, 700.0, 300.0)]
    assert oscillation([*steep, *straight]) == pytest.approx(0)
