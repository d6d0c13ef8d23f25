"""Which runs the explorer's page of a report shows."""

from collections.abc import Iterable, Iterator

from vae_core.explorer.page import PAGE
from vae_core.runs import CheckpointError, Run, published_run
from vae_core.storage import print_error
from vae_study.settings import Settings
from vae_study.tasks import Task

PUBLISHED = (
    ("conv", "p2", "celeba-9k"),
    ("conv", "p2", "cifar10-jpeg"),
    ("fc", "p2", "cifar10-jpeg"),
)
MAX_WEIGHTS = 9_000_000  # of the decoders of a report's own runs; each takes 8/3 bytes in the page


def explorer_runs(settings: Settings, tasks: Iterable[Task]) -> list[Run]:
    """Return the published runs, and of the report's own those that the page has room for."""
    return [*published_runs(settings), *trained_runs(settings, tasks)]


def published_runs(settings: Settings) -> Iterator[Run]:
    """Yield the published runs that exist; name on the error stream those that are damaged."""
    for model, params, dataset in PUBLISHED:
        try:
            yield published_run(model, params, dataset, checkpoints=settings.checkpoints)
        except FileNotFoundError:
            continue
        except CheckpointError as error:
            print_error(f"{PAGE} is without {model} {params} {dataset}: {error}")


def trained_runs(settings: Settings, tasks: Iterable[Task]) -> Iterator[Run]:
    """Yield runs with the original study's loss, the first seed and one parameter set."""
    params = "p2" if "p2" in settings.sets else settings.sets[0]
    room = MAX_WEIGHTS
    for task in dict.fromkeys(tasks):
        has_original_loss = task.options.keys() <= {"max_epochs", "precision"}
        if not has_original_loss or (task.params, task.seed) != (params, settings.seed):
            continue
        run = task.finished(settings.checkpoints)
        if run is None:
            continue
        room -= sum(weights.numel() for weights in run.model.decoder.parameters())
        if room >= 0:
            yield run
