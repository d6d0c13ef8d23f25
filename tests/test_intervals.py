import math

import pytest

from vae_core.intervals import Interval, format_mean_sd, holm, mean_interval, welch_difference


def test_the_mean_has_students_interval():
    interval = mean_interval([1.0, 2.0, 3.0])
    assert interval.mean == 2
    assert interval.half_width == pytest.approx(4.303 / math.sqrt(3), rel=1e-3)
    assert mean_interval([5.0]).half_width == math.inf


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([1.0, 1.1, 0.9], "holds"),
        ([-1.0, -1.1, -0.9], "does not hold"),
        ([1.0, -1.0, 2.0], "not shown"),
        ([0.0, 0.0], "not shown"),
        ([1.0, 1.0], "holds"),
        ([9.0], "open: one seed"),
    ],
)
def test_the_verdict_on_a_difference_that_should_be_positive(values, verdict):
    assert mean_interval(values).verdict == verdict


def test_welch_differences_are_not_paired():
    difference = welch_difference([6.3, 6.0, 5.7], [0.3, 0.0, -0.3])
    # Equal deviations and 3 + 3 values: 2.776 * sqrt(2 * 0.09 / 3)
    assert difference.mean == pytest.approx(6)
    assert difference.half_width == pytest.approx(0.680, abs=1e-3)
    assert difference.verdict == "holds"
    assert welch_difference([6.0], [0.0, 1.0]).half_width == math.inf


def test_holm_corrects_for_the_number_of_tests():
    intervals = [Interval(1.0, 0.5, p_value) for p_value in (0.01, 0.04, 0.03, 0.5)]
    corrected = [interval.p_value for interval in holm(intervals)]
    assert corrected == pytest.approx([0.04, 0.09, 0.09, 0.5])


def test_numbers_are_written_with_their_spread():
    assert str(mean_interval([5.0])) == "5.0"
    assert str(mean_interval([0.1, 0.3])) == "0.20 ± 1.27"
    assert format_mean_sd([76.0, 78.0]) == "77.0 ± 1.4"
    assert format_mean_sd([76.0], digits=2) == "76.00"
