import math

import pandas as pd
import pytest

from vae_study.claims import LOWER_LOSS, claims_table, results_table, with_original_loss


def row(model="conv", params="p1", seed=0, test_loss=76.0, **others):
    return {
        "model": model,
        "params": params,
        "seed": seed,
        "train_loss": 74.0,
        "test_loss": test_loss,
        "test_reconstruction": test_loss - 20,
        "test_kl": 20.0,
        "epochs": 20,
        "oscillation": 0.5,
        "beta": 1,
        "reduction": "sum",
        "schedule": "constant",
        **others,
    }


def claims_by_measure(rows):
    table = claims_table(pd.DataFrame(rows)).reset_index()
    return {claim["measured (nats or epochs)"]: claim for claim in table.to_dict("records")}


def test_models_and_sets_are_compared_seed_by_seed():
    losses = {"p1": (74, 83), "p2": (75, 78), "p3": (74, 80)}
    rows = []
    for params, (conv, fc) in losses.items():
        oscillation = 0.9 if params == "p1" else 0.4
        for seed in (0, 1, 2):
            shared = {"epochs": 20 + seed, "oscillation": oscillation}
            rows.append(row("conv", params, seed, conv + 10.0 * seed, **shared))
            rows.append(row("fc", params, seed, fc + 10.1 * seed, **shared))
    claims = claims_by_measure(rows)
    lower = claims["p1: test loss, FC-VAE − CVAE"]
    # By seed the difference hardly varies, while the losses themselves do.
    assert (lower["claim"], lower["seeds"], lower["verdict"]) == (LOWER_LOSS, 3, "holds")
    assert lower["difference"].mean == pytest.approx(9.1)
    earlier = claims["p1: epochs, FC-VAE − CVAE"]
    assert earlier["difference"].mean == 0 and earlier["verdict"] == "not shown"
    stable = claims["largest − smallest test loss of the sets, FC-VAE − CVAE"]
    assert stable["difference"].mean == pytest.approx(4) and stable["verdict"] == "holds"
    assert claims["oscillation of the CVAE, p1 − p2"]["difference"].mean == pytest.approx(0.5)
    assert len(claims) == 3 + 3 + 2 + 1 + 2


def test_several_tests_of_one_claim_need_more_than_an_interval_above_zero():
    differences = {"p1": (1.0, 1.2, 1.6), "p2": (-1.0, 0.0, 1.0), "p3": (-2.0, 0.0, 2.0)}
    rows = []
    for params, by_seed in differences.items():
        for seed, difference in enumerate(by_seed):
            rows.append(row("conv", params, seed, 80.0))
            rows.append(row("fc", params, seed, 80.0 + difference))
    claim = claims_by_measure(rows)["p1: test loss, FC-VAE − CVAE"]
    assert claim["difference"].mean > claim["difference"].half_width
    assert claim["verdict"] == "not shown"


def test_claims_without_runs_are_left_out():
    assert claims_by_measure([row("conv", "p1", 0)]) == {}
    rows = [row("fc", "p1"), row("fc", "p2", oscillation=math.nan), row("fc", "p2", 1)]
    assert list(claims_by_measure(rows)) == ["test loss of the FC-VAE, p1 − p2"]


def test_the_table_gathers_seeds_beside_the_published_numbers():
    rows = [row(test_loss=76.0), row(seed=1, test_loss=78.0), row("fc", "mine"), row("linear")]
    rows += [row(seed=2, beta=4), row(seed=2, reduction="mean"), row(seed=2, schedule="cosine")]
    table = results_table(with_original_loss(pd.DataFrame(rows)))
    conv, mine = table.loc["p1", "CVAE"], table.loc["mine", "FC-VAE"]
    assert (conv["seeds"], conv["test loss"], conv["KL"]) == (2, "77.0 ± 1.4", "20.0 ± 0.0")
    assert (conv["published epochs"], conv["published loss"]) == (18, 74.7)
    assert mine["published loss"] == "–" and mine["epochs"] == "20.0"
    assert table.loc["p1", "linear VAE"]["epochs"] == "solved"
