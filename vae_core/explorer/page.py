"""The page in which one moves through latent spaces: one file that needs no server.

The page holds the decoders' weights and decodes in plain JavaScript (`web/explore.js`).
"""

import base64
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jinja2 import Environment, PackageLoader, select_autoescape
from torch import Tensor, nn

from vae_core.explorer.state import top_latents
from vae_core.explorer.widgets import encode_png
from vae_core.latent import generate, interpolate, posterior_means, prior_samples, to_uint8
from vae_core.models import VAE, LinearVAE
from vae_core.runs import Run
from vae_core.storage import atomic_write, print_error

PAGE = "explore.html"
IMAGES = 12  # to be encoded, for each data set
STRIP_SEED = 5  # of the two samples between which the strip of the front page interpolates
TEMPLATES = Environment(
    loader=PackageLoader("vae_core.explorer", "web"),
    autoescape=select_autoescape(["html.j2"]),
    trim_blocks=True,
)


def write_explorer_page(path: Path, runs: Sequence[Run]) -> str:
    """Write the page of these runs; return the base64 PNG of a strip that leads to it.

    A run that cannot be shown is left out, and a line on the error stream says why. Without any
    run there is no page, and "" is returned.
    """
    runs = supported_runs(path, runs)
    if not runs:
        path.unlink(missing_ok=True)
        return ""
    images = images_to_encode(runs)
    models = [describe_model(run, images) for run in runs]
    pngs = {dataset: [encode_png(image) for image in each] for dataset, each in images.items()}
    strip = render_strip(runs[0].model)
    page = TEMPLATES.get_template("explore.html.j2").render(
        about={"models": models, "images": pngs},
        weights=[encode_weights(run.model.decoder.parameters()) for run in runs],
        strip=strip,
    )
    atomic_write(path, page)
    return strip


def page_key(run: Run) -> str:
    """Return what names a run in the page's address."""
    return f"{run.dataset['folder']}/{run.folder.name}"


def supported_runs(path: Path, runs: Iterable[Run]) -> list[Run]:
    """Return the runs that the page can decode, each once; name the others on stderr."""
    supported: dict[str, Run] = {}
    for run in runs:
        try:
            describe_layers(run.model)
        except ValueError as error:
            print_error(f"{path.name} is without {run.folder}: {error}")
            continue
        supported[page_key(run)] = run
    return list(supported.values())


def describe_layers(model: VAE) -> list[dict[str, Any]]:
    """Describe a decoder's layers as `explore.js` reads them, in the order of their weights.

    Raises ValueError for other layers, another `decode`, or weights that are not finite.
    """
    if type(model).decode is VAE.decode:
        last = [{"type": "sigmoid"}]
    elif type(model).decode is LinearVAE.decode:
        last = []
    else:
        raise ValueError(f"the {model.title} decodes in its own way, which this page does not know")
    if not all(weights.half().isfinite().all() for weights in model.decoder.parameters()):
        raise ValueError("its weights are damaged, or too large for 16 bits")
    layers = [model.decoder] if isinstance(model.decoder, nn.Linear) else model.decoder
    return [describe_layer(layer) for layer in layers] + last


def describe_layer(layer: nn.Module) -> dict[str, Any]:
    """Describe a layer as `explore.js` reads it; raise ValueError for one that it does not know."""
    if isinstance(layer, nn.Linear) and layer.bias is not None:
        return {"type": "linear", "from": layer.in_features, "to": layer.out_features}
    if isinstance(layer, nn.ReLU):
        return {"type": "relu"}
    if isinstance(layer, nn.Unflatten):
        return {"type": "reshape", "shape": list(layer.unflattened_size)}
    if isinstance(layer, nn.ConvTranspose2d):
        sizes = [layer.kernel_size, layer.stride, layer.padding]
        if sizes == [(4, 4), (2, 2), (1, 1)]:
            return {"type": "deconvolution", "to": layer.out_channels}
    raise ValueError(f"its decoder has the layer {layer}, which this page does not know")


def describe_model(run: Run, images: dict[str, Tensor]) -> dict[str, Any]:
    """Return what the page has to know of a run besides its weights."""
    model, dataset = run.model, dataset_label(run)
    means = posterior_means(model, images[dataset])
    return {
        "key": page_key(run),
        "title": f"{model.title} {run.config.params.name}",
        "data": dataset,
        "latents": model.latent_dim,
        "shape": model.image_shape,
        "layers": describe_layers(model),
        "dimensions": [[dimension, round(kl, 1)] for dimension, kl in top_latents(model).items()],
        "means": means.double().numpy().round(4).tolist(),
    }


def dataset_label(run: Run) -> str:
    """Return the name of a run's images; models of the same images are compared."""
    label, size = run.dataset["title"], run.model.image_shape[-1]
    if size != 32:
        label += f", {size} px"
    if not run.provenance["published"]:
        label += ", this report"
    return label


def images_to_encode(runs: Sequence[Run]) -> dict[str, Tensor]:
    """Return images to encode for each data set, generated by all of its models in equal parts."""
    images = {}
    for dataset in dict.fromkeys(dataset_label(run) for run in runs):
        models = [run.model for run in runs if dataset_label(run) == dataset]
        share = math.ceil(IMAGES / len(models))
        images[dataset] = torch.cat([generate(model, share, seed=1) for model in models])[:IMAGES]
    return images


def render_strip(model: VAE) -> str:
    """Return the base64 PNG of an interpolation between two samples from the prior."""
    z1, z2 = prior_samples(model, 2, seed=STRIP_SEED)
    images = to_uint8(interpolate(model, z1, z2))
    return encode_png(torch.cat(list(images), dim=-1))


def encode_weights(parameters: Iterable[Tensor]) -> str:
    """Return weights as the base64 of their values in 16 bits, little-endian."""
    values = [weights.detach().half().numpy().ravel() for weights in parameters]
    return base64.b64encode(np.concatenate(values).astype("<f2").tobytes()).decode()
