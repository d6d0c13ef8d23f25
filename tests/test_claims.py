import math

import pytest

from vae_core.claims import claims_table, interval, verdict


def a_result(model, params, seed, test_loss, epochs=20, oscillation=0.5):
    return {
        "model": model,
        "params": params,
        "seed": seed,
        "test_loss": test_loss,
        "epochs": epochs,
        "oscillation": oscillation,
    }


def test_interval_of_student():
    mean, half = interval([1.0, 2.0, 3.0])
    assert mean == 2 and half == pytest.approx(4.303 / math.sqrt(3), rel=1e-3)
    assert interval([5.0]) == (5.0, math.inf)
    assert interval([0.0, 1.0] * 50)[1] < interval([0.0, 1.0] * 5)[1]
    assert str(interval([5.0])) == "5.0" and str(interval([0.1, 0.3])) == "0.20 ± 1.27"


def test_verdicts():
    assert verdict(interval([1.0, 1.1, 0.9])) == "holds"
    assert verdict(interval([-1.0, -1.1, -0.9])) == "does not hold"
    assert verdict(interval([1.0, -1.0, 2.0])) == "not shown"
    assert verdict(interval([9.0])) == "open: one seed"


def test_differences_are_taken_seed_by_seed():
    results = [
        a_result(model, "p1", seed, 10.0 * seed + (7.0 + 0.1 * seed) * (model == "fc"), 20 + seed)
        for seed in (0, 1, 2)
        for model in ("conv", "fc")
    ]
    lower, earlier = claims_table(results).rows
    assert lower["seeds"] == 3
    assert lower["difference"].mean == pytest.approx(7.1) and lower["verdict"] == "holds"
    assert earlier["difference"] == (0, 0) and earlier["verdict"] == "not shown"


def test_claims_without_numbers_are_left_out():
    """Sets, models and seeds that were not trained, and oscillations that were not measured."""
    assert claims_table([a_result("conv", "p1", 0, 74.0)]).rows == []
    results = [
        a_result("fc", "p1", 0, 80.0),
        a_result("fc", "p2", 0, 78.0, oscillation=math.nan),
        a_result("fc", "p2", 1, 79.0),
    ]
    (best,) = claims_table(results).rows
    assert "p1 − p2" in best["measured (nats or epochs)"]
    assert (best["seeds"], best["difference"].mean) == (1, 2.0)
    assert best["verdict"] == "open: one seed"


def test_oscillation_is_that_of_p1_less_that_of_p2():
    results = [
        a_result("conv", params, seed, 74.0, oscillation=value + 0.01 * seed)
        for params, value in (("p1", 0.9), ("p2", 0.4))
        for seed in (0, 1)
    ]
    (row,) = claims_table(results).rows
    assert row["difference"].mean == pytest.approx(0.5) and row["verdict"] == "holds"


def test_stability_is_the_range_over_the_sets():
    losses = {"p1": (74, 83), "p2": (75, 78), "p3": (74, 80)}
    results = [
        a_result(model, params, seed, loss)
        for params, pair in losses.items()
        for model, loss in zip(("conv", "fc"), pair, strict=True)
        for seed in (0, 1)
    ]
    rows = claims_table(results).rows
    (stable,) = [row for row in rows if "stable" in row["claim"]]
    assert stable["difference"] == (4, 0) and stable["verdict"] == "holds"
    assert len(rows) == 3 + 3 + 2 + 1 + 2
