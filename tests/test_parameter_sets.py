import pytest

from vae_core.parameter_sets import ParameterSet, parameter_set


def test_the_sets_of_the_study():
    numbers = [
        (p.batch_size, p.learning_rate, p.latent_dim)
        for p in map(parameter_set, ("p1", "p2", "p3"))
    ]
    assert numbers == [(64, 1e-3, 128), (128, 5e-4, 128), (64, 5e-4, 256)]


def test_a_set_of_ones_own_is_taken_as_it_is():
    mine = ParameterSet("mine", 32, 0.01, 8)
    assert parameter_set(mine) is mine


@pytest.mark.parametrize("name", ["p4", "", None, 1])
def test_unknown_set_lists_the_known_ones(name):
    with pytest.raises(ValueError, match="p1, p2, p3"):
        parameter_set(name)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("batch_size", value) for value in (0, -1, 1.5, "64", None, True)),
        *(("latent_dim", value) for value in (0, 2.0)),
        *(("learning_rate", value) for value in (0, -1e-3, 2, float("nan"), float("inf"), "1e-3")),
    ],
)
def test_values_that_make_no_sense_are_named(field, value):
    values = {"batch_size": 64, "learning_rate": 1e-3, "latent_dim": 128, field: value}
    with pytest.raises(ValueError, match=f"{field} is .*'mine'"):
        ParameterSet("mine", **values)
