"""Means over seeds with confidence intervals, differences between groups, multiple tests."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Interval:
    """A mean and half the width of its 95 % confidence interval.

    `p_value` is that of the two-sided test against a mean of 0. `str` gives "2.7 ± 0.2".
    """

    mean: float
    half_width: float  # infinite for a single value
    p_value: float = 1.0

    def __str__(self) -> str:
        digits = 1 if abs(self.mean) >= 1 else 2
        if math.isinf(self.half_width):
            return f"{self.mean:.{digits}f}"
        return f"{self.mean:.{digits}f} ± {self.half_width:.{digits}f}"

    @property
    def verdict(self) -> str:
        """The verdict at 5 % on a claim that the mean is positive."""
        if math.isinf(self.half_width):
            return "open: one seed"
        if self.p_value > 0.05:
            return "not shown"
        return "holds" if self.mean > 0 else "does not hold"


def mean_interval(values: Sequence[float]) -> Interval:
    """Return the mean with its 95 % interval by Student's t; infinite for a single value."""
    n = len(values)
    if n == 1:
        return Interval(float(values[0]), math.inf)
    mean = float(np.mean(values))
    standard_error = float(np.std(values, ddof=1) / math.sqrt(n))
    half_width = stats.t.ppf(0.975, n - 1) * standard_error
    if standard_error > 0:
        p_value = 2 * stats.t.sf(abs(mean) / standard_error, n - 1)
    else:
        p_value = 0.0 if mean != 0 else 1.0
    return Interval(mean, half_width, p_value)


def welch_difference(larger: Sequence[float], smaller: Sequence[float]) -> Interval:
    """Return the difference of the means, `larger` - `smaller`, with its interval by Welch's t.

    The values are not paired: two models with the same seed share the order of the images and
    nothing else. The interval is infinite where one group has a single value.
    """
    mean = float(np.mean(larger) - np.mean(smaller))
    if min(len(larger), len(smaller)) == 1:
        return Interval(mean, math.inf)
    test = stats.ttest_ind(larger, smaller, equal_var=False)
    bounds = test.confidence_interval()
    return Interval(mean, float(bounds.high - bounds.low) / 2, float(test.pvalue))


def holm(intervals: Sequence[Interval]) -> list[Interval]:
    """Return the intervals of one family of tests with p-values corrected by Holm 1979."""
    corrected = list(intervals)
    by_p_value = sorted(range(len(corrected)), key=lambda index: corrected[index].p_value)
    lower_bound = 0.0
    for rank, index in enumerate(by_p_value):
        p_value = (len(corrected) - rank) * corrected[index].p_value
        lower_bound = max(lower_bound, min(1.0, p_value))
        corrected[index] = replace(corrected[index], p_value=lower_bound)
    return corrected


def format_mean_sd(values: Sequence[float], digits: int = 1) -> str:
    """Return mean and standard deviation as in "74.1 ± 0.3"; of a single value the mean alone."""
    text = f"{np.mean(values):.{digits}f}"
    if len(values) > 1:
        text += f" ± {np.std(values, ddof=1):.{digits}f}"
    return text
