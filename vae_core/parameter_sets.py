"""The study's parameter sets: the only place where these numbers stand."""

from dataclasses import dataclass

from vae_core.storage import number, whole_number


@dataclass(frozen=True)
class ParameterSet:
    """What the study varies between its trainings.

    A ValueError names a value that makes no sense.
    """

    name: str  # in notebooks, tables and folders
    batch_size: int  # images in one optimizer step, at least 1
    learning_rate: float  # Adam's step size, above 0 and at most 1
    latent_dim: int  # dimensions of the latent space, at least 1

    def __post_init__(self):
        for field in ("batch_size", "latent_dim"):
            object.__setattr__(self, field, whole_number(field, getattr(self, field), least=1))
        rate = number("learning_rate", self.learning_rate, above=0, most=1)
        object.__setattr__(self, "learning_rate", rate)


PARAMETER_SETS = {
    parameters.name: parameters
    for parameters in (
        ParameterSet("p1", batch_size=64, learning_rate=1e-3, latent_dim=128),
        ParameterSet("p2", batch_size=128, learning_rate=5e-4, latent_dim=128),
        ParameterSet("p3", batch_size=64, learning_rate=5e-4, latent_dim=256),
        # Not the study's: a latent space that can be drawn on paper.
        ParameterSet("plane", batch_size=128, learning_rate=1e-3, latent_dim=2),
    )
}


def parameter_set(params: str | ParameterSet) -> ParameterSet:
    """Return the parameter set of this name, or a set of one's own as it is; else a ValueError."""
    if isinstance(params, ParameterSet):
        return params
    if not isinstance(params, str) or params not in PARAMETER_SETS:
        raise ValueError(
            f"unknown parameter set {params!r}; choose one of {', '.join(PARAMETER_SETS)}, "
            "or add one in vae_core/parameter_sets.py"
        )
    return PARAMETER_SETS[params]
