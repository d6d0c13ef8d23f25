"""What a training is: the parameter sets p1, p2 and p3, and the complete configuration."""

from dataclasses import dataclass
from numbers import Real

from vae_core.models import MODELS
from vae_core.storage import check_bool, check_choice, check_float, check_int


def set_field(instance: object, field: str, value: object) -> None:
    """Set a field of a frozen dataclass while it is being built."""
    object.__setattr__(instance, field, value)


@dataclass(frozen=True)
class ParameterSet:
    """Batch size, learning rate and number of latents: what the original study varies.

    Raises ValueError, which names the field, where a value is invalid.
    """

    name: str  # in notebooks, tables and folder names
    batch_size: int  # images in one optimizer step, at least 1
    learning_rate: float  # Adam's step size, above 0 and at most 1
    latent_dim: int  # number of latents, at least 1

    def __post_init__(self):
        set_field(self, "batch_size", check_int("batch_size", self.batch_size, at_least=1))
        set_field(self, "latent_dim", check_int("latent_dim", self.latent_dim, at_least=1))
        rate = check_float("learning_rate", self.learning_rate, above=0, at_most=1)
        set_field(self, "learning_rate", rate)


PARAMETER_SETS = {
    "p1": ParameterSet("p1", batch_size=64, learning_rate=1e-3, latent_dim=128),
    "p2": ParameterSet("p2", batch_size=128, learning_rate=5e-4, latent_dim=128),
    "p3": ParameterSet("p3", batch_size=64, learning_rate=5e-4, latent_dim=256),
    # Ours: a latent space that can be drawn on paper.
    "plane": ParameterSet("plane", batch_size=128, learning_rate=1e-3, latent_dim=2),
}


def parameter_set(params: str | ParameterSet) -> ParameterSet:
    """Return the parameter set of this name; return a `ParameterSet` as it is.

    Raises ValueError, which lists the names, where there is none of this name.
    """
    if isinstance(params, ParameterSet):
        return params
    if not isinstance(params, str) or params not in PARAMETER_SETS:
        raise ValueError(
            f"unknown parameter set {params!r}; choose one of {', '.join(PARAMETER_SETS)}, "
            "or add one in vae_core/config.py"
        )
    return PARAMETER_SETS[params]


ORIGINAL_VARIANCE = 0.5  # of the decoder whose loss is squared error + KL
LEARNED = "learned"
CHOICES = {
    "model": MODELS,
    "monitor": ("train", "validation"),
    "reduction": ("sum", "mean"),
    "precision": ("auto", "float32", "bfloat16"),
    "schedule": ("constant", "cosine"),
}


@dataclass(frozen=True)
class Config:
    """Everything that decides how a training goes, apart from the images.

    Raises ValueError, which names the field, where a value is invalid or two fields contradict
    each other.
    """

    model: str  # a name in `MODELS`
    params: ParameterSet
    seed: int = 0  # of all random numbers in the training
    max_epochs: int = 100  # the training ends after this many epochs at the latest
    patience: int = 5  # epochs without progress before early stopping; 0: no early stopping
    min_delta: float = 0.5  # how far the loss must fall to count as progress, in nats per image
    monitor: str = "train"  # or "validation": the loss that selects the stop and the best epoch
    beta: float = 1.0  # weight of the KL term
    reduction: str = "sum"  # or "mean", see `loss.elbo`
    precision: str = "auto"  # "float32", "bfloat16", or whichever is faster here
    schedule: str = "constant"  # or "cosine", see `training.learning_rate`
    decoder_variance: float | str = ORIGINAL_VARIANCE  # or "learned", see `loss.elbo`
    flip: bool = False  # flip training images horizontally with probability 1/2
    weight_decay: float = 0.0  # decoupled, as in AdamW
    dropout: float = 0.0  # probability after each hidden layer of the FC-VAE
    kl_warmup: float = 0.0  # share of max_epochs in which the KL weight rises from 0 to beta
    rate_warmup: float = 0.0  # share of max_epochs in which the learning rate rises from 0

    def __post_init__(self):
        set_field(self, "seed", check_int("seed", self.seed, at_least=0))
        set_field(self, "max_epochs", check_int("max_epochs", self.max_epochs, at_least=1))
        set_field(self, "patience", check_int("patience", self.patience, at_least=0))
        set_field(self, "min_delta", check_float("min_delta", self.min_delta))
        set_field(self, "beta", check_float("beta", self.beta))
        for field, choices in CHOICES.items():
            check_choice(field, getattr(self, field), choices)
        set_field(self, "decoder_variance", check_decoder_variance(self.decoder_variance))
        check_bool("flip", self.flip)
        set_field(self, "weight_decay", check_float("weight_decay", self.weight_decay, at_most=1))
        set_field(self, "dropout", check_float("dropout", self.dropout, below=1))
        for field in ("kl_warmup", "rate_warmup"):
            set_field(self, field, check_float(field, getattr(self, field), at_most=1))
        self._check_contradictions()

    @property
    def learns_variance(self) -> bool:
        """Whether the decoder's variance is learned."""
        return self.decoder_variance == LEARNED

    def _check_contradictions(self) -> None:
        if self.schedule == "cosine" and self.patience > 0:
            raise ValueError(
                f"patience is {self.patience}, but the schedule 'cosine' has to run to max_epochs; "
                "give patience 0, which switches early stopping off"
            )
        if self.kl_warmup > 0 and self.patience > 0:
            raise ValueError(
                f"kl_warmup is {self.kl_warmup}, but patience is {self.patience}: the loss rises "
                "with the weight of its KL term and would stop the training; give patience 0"
            )
        if self.learns_variance and self.reduction == "mean":
            raise ValueError(
                "decoder_variance is 'learned', but reduction is 'mean'; "
                "a likelihood needs the sum over an image's values"
            )
        if self.dropout > 0 and not MODELS[self.model].has_dropout:
            raise ValueError(
                f"dropout is {self.dropout}, but the model {self.model!r} has no dropout; give 0"
            )


def check_decoder_variance(value: object) -> float | str:
    """Return a valid decoder variance; raise ValueError for any other value."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if value == LEARNED or (is_number and value == ORIGINAL_VARIANCE):
        return value
    raise ValueError(
        f"decoder_variance is {value!r}; give {ORIGINAL_VARIANCE}, whose loss is squared error + "
        f"KL, or {LEARNED!r}. A fixed variance v gives the same model as beta = 2 v"
    )
