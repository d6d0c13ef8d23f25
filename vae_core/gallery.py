"""What the published runs imagine, drawn from their weights alone: no data set is needed.

`make gallery`, or `python -m vae_core.gallery FOLDER`, which writes pictures into a folder.
"""

import argparse
import sys
from pathlib import Path

import matplotlib.pyplot as plt

from vae_core import figures
from vae_core.checkpoints import Run, load_run
from vae_core.data import TITLES
from vae_core.files import CHECKPOINTS, PROJECT, writing
from vae_core.latent import imagine, interpolate, prior_draws


def published_runs(checkpoints: Path | str = CHECKPOINTS) -> list[Run]:
    """Load the runs that come with the repository, by data set, parameter set and model.

    Raises:
        FileNotFoundError: there is none.
        CheckpointError: one of them is damaged.
    """
    records = [path for path in Path(checkpoints).glob("*/*/run.json") if _is_published(path)]
    runs = [load_run(path.parent) for path in records]
    if not runs:
        raise FileNotFoundError(
            f"{checkpoints} holds no published run; git checkout -- checkpoints brings them back"
        )
    return sorted(
        runs, key=lambda run: (run.config["dataset"], run.config["params"]["name"], run.folder.name)
    )


def _is_published(record: Path) -> bool:
    """Look without checking, so that damage to other runs does no harm here."""
    text = record.read_text(encoding="utf-8", errors="replace")
    return '"published": {' in text and not record.parent.name.endswith(".previous")


def draw_gallery(folder: Path, checkpoints: Path | str = CHECKPOINTS) -> list[Path]:
    """Draw samples, interpolations and loss curves of the published runs of each data set.

    Returns:
        the files, `<data set>-samples.png` and so on.
    """
    datasets: dict[str, dict[str, Run]] = {}
    for run in published_runs(checkpoints):
        name = f"{run.config['params']['name']} {run.model.title}"
        datasets.setdefault(run.config["dataset"], {})[name] = run
    drawn = []
    for dataset, runs in datasets.items():
        title = TITLES.get(dataset, dataset)
        drawings = {
            "samples": samples(runs, title),
            "interpolation": interpolations(runs, title),
            "curves": figures.loss_curves(
                runs, f"Validation loss and its parts on {title}", training=False
            ),
        }
        for kind, figure in drawings.items():
            drawn.append(folder / f"{dataset}-{kind}.png")
            with writing(drawn[-1]) as file, plt.rc_context(figures.STYLE):
                figure.savefig(file, format="png")
            plt.close(figure)
    return drawn


def samples(runs: dict[str, Run], title: str) -> plt.Figure:
    """Show what each run imagines: a row for each, three rows for a single one."""
    title = f"Decoded draws from the prior, {_trained(runs)} {title}"
    if len(runs) == 1:
        return figures.picture_grid(imagine(next(iter(runs.values())).model, 36), title, 12)
    return figures.picture_rows({name: imagine(run.model, 12) for name, run in runs.items()}, title)


def interpolations(runs: dict[str, Run], title: str) -> plt.Figure:
    """Show strips between draws from the prior: one for each run, six for a single."""
    strips = {}
    for name, run in runs.items():
        pairs = 6 if len(runs) == 1 else 1
        ends = prior_draws(run.model, 2 * pairs, seed=1)
        for pair in range(pairs):
            label = name if pairs == 1 else f"pair {pair + 1}"
            strips[label] = interpolate(run.model, ends[2 * pair], ends[2 * pair + 1])
    title = f"Straight lines between two draws from the prior, {_trained(runs)} {title}"
    return figures.interpolation_rows(strips, title)


def _trained(runs: dict[str, Run]) -> str:
    return f"{next(iter(runs)) if len(runs) == 1 else 'models'} trained on"


def main(arguments: list[str] | None = None) -> int:
    """Draw the gallery into a folder; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m vae_core.gallery", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=PROJECT / "report" / "gallery")
    parser.add_argument("--checkpoints", type=Path, default=CHECKPOINTS)
    chosen = parser.parse_args(arguments)
    plt.switch_backend("agg")
    try:
        drawn = draw_gallery(chosen.folder, chosen.checkpoints)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("\n".join(map(str, drawn)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
