import math
import re

import pytest
from helpers import one_line, tiny_dataset

from vae_core.runs.results import COLUMNS, read_results, result_row, write_results


def test_a_run_becomes_a_row_that_is_read_as_it_was_written(trained, tmp_path):
    row = result_row(trained, tiny_dataset())
    assert list(row) == COLUMNS and 0 <= row["active_dimensions"] <= 2
    assert row["dataset"] == trained.dataset["folder"]
    assert (row["title"], row["max_epochs"]) == ("tiny", 2)
    assert row["test_kl"] == pytest.approx(trained.summary["test"]["kl"], abs=1e-4)
    path = tmp_path / "results.csv"
    # A run may diverge without a value that is infinite or NaN.
    wild = row | {"seed": 1, "oscillation": math.inf, "test_loss": 1e38, "rounding": -0.001}
    write_results(path, [row, wild])
    rows = read_results(path).to_dict("records")
    for name, value in row.items():
        missing = value is None or (isinstance(value, float) and math.isnan(value))
        assert math.isnan(rows[0][name]) if missing else rows[0][name] == value, name
    assert rows[1]["oscillation"] == math.inf and rows[1]["rounding"] == -0.001


@pytest.mark.parametrize(
    ("damage", "message"),
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
def test_a_damaged_table_is_one_clear_line(trained, tmp_path, damage, message):
    path = tmp_path / "results.csv"
    write_results(path, [result_row(trained)])
    path.write_text(damage(path.read_text()))
    with pytest.raises(ValueError, match=message) as error:
        read_results(path)
    assert "results.csv" in one_line(error)


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.csv does not exist"):
        read_results(tmp_path / "none.csv")
