"""The page in which one moves through latent spaces: one file that needs no server."""

import base64
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from jinja2 import Environment
from torch import Tensor, nn

from study.runs import Settings, Task
from vae_core.baselines import LinearVAE
from vae_core.checkpoints import CheckpointError, Run
from vae_core.controls import png
from vae_core.experiment import published_run
from vae_core.explorer import ranked_dimensions
from vae_core.latent import as_bytes, imagine, interpolate, posterior_means, prior_draws
from vae_core.models import VAE
from vae_core.storage import say, write

PAGE = "explore.html"
PUBLISHED = (
    ("conv", "p2", "celeba-9k"),
    ("conv", "p2", "cifar10-jpeg"),
    ("fc", "p2", "cifar10-jpeg"),
)
IMAGES = 12  # to be encoded, for each data set
OWN_WEIGHTS = 9_000_000  # of a report's own runs, which take 8/3 bytes each


def write_explorer(settings: Settings, tasks: list[Task], templates: Environment) -> str:
    """Write the page of the published runs and of those of `tasks`; return a strip, a PNG.

    Of the tasks those with the study's loss, the first seed and one parameter set are shown, while
    there is room. A run that cannot be shown is left out, and a line on the error stream says
    why. Without any run there is no page and no strip.
    """
    page, shown = settings.report / PAGE, {}
    for run in _runs(settings, tasks):
        try:
            shown[f"{run.dataset['folder']}/{run.folder.name}"] = run, layers(run.model)
        except ValueError as error:
            say(f"{PAGE} is without {run.folder}: {error}")
    if not shown:
        page.unlink(missing_ok=True)
        return ""
    runs = [run for run, _ in shown.values()]
    first = runs[0].model
    strip = as_bytes(interpolate(first, *prior_draws(first, 2, seed=5)))
    strip = png(torch.cat([*strip], dim=-1))
    images = _images(runs)
    models = [_model(key, *found, images) for key, found in shown.items()]
    pngs = {data: [*map(png, some)] for data, some in images.items()}
    about = {"models": models, "images": pngs}
    weights = [_half(run.model.decoder.parameters()) for run in runs]
    template = templates.get_template("explore.html.j2")
    write(page, template.render(about=about, weights=weights, strip=strip))
    return strip


def _runs(settings: Settings, tasks: list[Task]) -> Iterator[Run]:
    for name in PUBLISHED:
        try:
            yield published_run(*name, checkpoints=settings.checkpoints)
        except FileNotFoundError:
            continue
        except CheckpointError as error:
            say(f"{PAGE} is without {' '.join(name)}: {error}")
    params = "p2" if "p2" in settings.sets else settings.sets[0]
    room = OWN_WEIGHTS
    for task in dict.fromkeys(tasks):
        usual = task.options.keys() <= {"max_epochs", "precision"}
        if usual and (task.params, task.seed) == (params, settings.seed):
            run = task.finished(settings.checkpoints)
            room -= sum(values.numel() for values in run.model.decoder.parameters()) if run else 0
            if run and room >= 0:
                yield run


def layers(model: VAE) -> list[dict[str, Any]]:
    """Describe a decoder's layers as `explore.js` decodes them, in the order of their weights.

    Raises ValueError for other layers, another way to decode, or weights that are not finite.
    """
    last = {VAE.decode: [{"kind": "sigmoid"}], LinearVAE.decode: []}.get(type(model).decode)
    if last is None:
        raise ValueError(f"the {model.title} decodes in its own way, which this page does not know")
    if not all(values.half().isfinite().all() for values in model.decoder.parameters()):
        raise ValueError("its weights are damaged, or too large for 16 bits")
    described = []
    for layer in [model.decoder] if isinstance(model.decoder, nn.Linear) else model.decoder:
        sizes = [getattr(layer, name, None) for name in ("kernel_size", "stride", "padding")]
        if isinstance(layer, nn.Linear) and layer.bias is not None:
            kind = {"kind": "linear", "from": layer.in_features, "to": layer.out_features}
        elif isinstance(layer, nn.ReLU):
            kind = {"kind": "relu"}
        elif isinstance(layer, nn.Unflatten):
            kind = {"kind": "reshape", "shape": list(layer.unflattened_size)}
        elif isinstance(layer, nn.ConvTranspose2d) and sizes == [(4, 4), (2, 2), (1, 1)]:
            kind = {"kind": "deconvolution", "to": layer.out_channels}
        else:
            raise ValueError(f"its decoder has the layer {layer}, which this page does not know")
        described.append(kind)
    return described + last


def _model(key: str, run: Run, described: list, images: dict[str, Tensor]) -> dict[str, Any]:
    model, means = run.model, posterior_means(run.model, images[_data(run)])
    return {
        "key": key,
        "title": f"{model.title} {run.config.params.name}",
        "data": _data(run),
        "latents": model.latent_dim,
        "shape": model.image_shape,
        "layers": described,
        "dimensions": [[k, round(kl, 1)] for k, kl in ranked_dimensions(model).items()],
        "means": means.double().numpy().round(4).tolist(),
    }


def _data(run: Run) -> str:
    """Return what people call the images that a run has learned: models of the same are a pair."""
    size = run.model.image_shape[-1]
    own = ", this report" * (not run.record["published"])
    return run.dataset["title"] + f", {size} px" * (size != 32) + own


def _images(runs: list[Run]) -> dict[str, Tensor]:
    """Return the images to be encoded for each data set, which all of its models have imagined."""
    images = {}
    for data in dict.fromkeys(map(_data, runs)):
        same = [run.model for run in runs if _data(run) == data]
        each = math.ceil(IMAGES / len(same))
        images[data] = torch.cat([imagine(model, each, seed=1) for model in same])[:IMAGES]
    return images


def _half(parameters) -> str:
    values = np.concatenate([p.detach().half().numpy().ravel() for p in parameters])
    return base64.b64encode(values.astype("<f2").tobytes()).decode()
