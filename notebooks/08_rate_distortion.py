# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Why are the images blurry, and what does sharp cost?
#
# Whoever trains a VAE asks this first. The answer is a price: a VAE describes an image in nats, and
# leaves out whatever saves less squared error than its description costs. The price is ours to set.
# It is β, the weight of the KL term (Higgins et al. 2017; Alemi et al. 2018, arXiv:1711.00464).

# %% tags=["parameters"]
params = "p2"
dataset = "published"
seed = 0
betas = "0.1 1 10"
max_epochs = 100
limit = None
size = 32
precision = "auto"

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from scipy.fft import dctn

from vae_core import figures
from vae_core.baselines import LinearVAE
from vae_core.data import facts, load_dataset
from vae_core.experiment import published_run, train_or_load
from vae_core.latent import imagine
from vae_core.models import MODELS
from vae_core.parameter_sets import parameter_set
from vae_core.storage import PROJECT
from vae_core.tables import read_results, result

prices = [float(beta) for beta in betas.split()]
if dataset == "published":
    data = load_dataset("shapes")
    conv = {beta: published_run("conv", params, "shapes", seed, beta=beta) for beta in prices}
    table = read_results(PROJECT / "figures" / "rate_distortion.csv")
else:
    data = load_dataset(dataset, limit=limit, fraction=facts(dataset).fraction, size=size)
    options = {"seed": seed, "max_epochs": max_epochs, "precision": precision}
    conv = {beta: train_or_load("conv", params, data, beta=beta, **options) for beta in prices}
    fc = {beta: train_or_load("fc", params, data, beta=beta, **options) for beta in prices}
    table = pd.DataFrame([result(run) for run in [*conv.values(), *fc.values()]])

# %% tags=["report"]
rows = {"original": data.test[:10]}
rows |= {f"β = {beta:g}": run.model.reconstruct(data.test[:10]) for beta, run in conv.items()}
figures.image_rows(rows, f"The same images at different prices: CVAE {params}, {data.title}")
plt.show()

# %% [markdown]
# The network of the last row has the same layers as that of the first. It was told that a nat is
# dear.
#
# ## What does a nat buy?
#
# Give the CVAE's blur a scale. Across: the *rate*, what a model says about an image in nats (the KL
# term). Upwards: the *distortion*, the squared error that remains. *Before you look: if a nat costs
# β, how steep is the curve where a model stands?*


# %%
pixels = data.train.flatten(1).float() / 255
variances = torch.linalg.eigvalsh(torch.cov(pixels.T, correction=0)).flip(0).clamp(1e-9).numpy()
latents = parameter_set(params).latent_dim


def linear_curve(betas):
    """Return rate and distortion of the best linear encoder and decoder at each beta.

    Every direction of the data is filled with error up to the water level beta / 2; what stands
    out of the water is described (Cover & Thomas, "reverse water-filling"), a direction a latent.
    """
    level, strong = np.asarray(betas)[:, None] / 2, variances[:latents]
    rate = 0.5 * np.log(np.maximum(strong / level, 1)).sum(1)
    return rate, np.minimum(strong, level).sum(1) + variances[latents:].sum()


shown = np.geomspace(0.03, 100, 60)
rate, distortion = linear_curve(shown)

# %% tags=["report"]
figure, axes = figures.panels(1, f"Rate and distortion on the test images, {data.title}", (10, 6))
axis = axes[0, 0]
axis.plot(rate, distortion, color=LinearVAE.colour, label="linear VAE, every β")
for name, points in table.groupby("model"):
    points = points.sort_values("beta")
    model, x, y = MODELS[name], points["test_kl"], points["test_reconstruction"]
    axis.plot(x, y, "o-", color=model.colour, label=model.title)
    for beta, *place in zip(points["beta"], x, y, strict=True):
        axis.annotate(f"β {beta:g}", place, xytext=(6, 6), textcoords="offset points", fontsize=9)
    whole = points[points["beta"] == 1]
    if len(whole):
        x, y = whole["test_kl"].iloc[0], whole["test_reconstruction"].iloc[0]
        axis.plot([x - 6, x + 6], [y + 6, y - 6], ":", color=model.colour)
axis.set(xlabel="rate: KL, nats per image", ylabel="distortion: squared error per image")
axis.set_ylim(0, 1.05 * max(table["test_reconstruction"].max(), distortion[-1]))
axis.set_xlim(-1, 1.15 * max(table["test_kl"].max(), 10))
axis.legend()
plt.show()

# %% [markdown]
# A model at β stands where one more nat saves β of squared error: at the study's β = 1 the slope
# is −1 (dotted). To the right of it, more would be said than it is worth; to the left, less. So a
# curve is a model, a point on it a taste, and *better* means a curve that lies further down and
# to the left. One number at β = 1 compares two curves at one place only.
#
# *At β = 10 both trained models lie on or above the line of a matrix. Is that the price?* No: the
# line says what the price allows. While a nat is that dear, the first clumsy ones do not pay, the
# models learn to say little, and the rule of early stopping ends them there (see 05). Straight
# pieces between the points are for the eye only.

# %% tags=["report"]
at = table.set_index(["model", "beta"])
for beta in prices:
    found = {name: at.loc[(name, beta)] for name in ("conv", "fc")}
    told = ", ".join(
        f"{MODELS[name].title} {row['test_reconstruction']:.1f} at {row['test_kl']:.1f} nats"
        for name, row in found.items()
    )
    print(f"β {beta:g}: squared error {told}")

# %% [markdown]
# ## The water level
#
# For a linear model all of this is two lines of code, `linear_curve` above. The images vary along
# 3072 directions; β / 2 is a water level. What lies below it drowns: those directions are not
# described at all, and *that is the blur*. Faint directions are the fine ones.

# %%
figure, axes = figures.panels(1, f"How the images vary, {data.title}", (10, 4.5))
axes[0, 0].plot(np.arange(1, 301), variances[:300], color=LinearVAE.colour)
for beta in prices:
    kept = int((variances > beta / 2).sum())
    axes[0, 0].axhline(beta / 2, color="black", linewidth=1)
    text = f"β {beta:g}: {kept} directions stand out"
    axes[0, 0].annotate(text, (300, beta / 2), ha="right", va="bottom", fontsize=10)
axes[0, 0].set(xlabel="principal direction, the strongest first", ylabel="variance", yscale="log")
plt.show()

# %% [markdown]
# The trained linear VAE has to lie on that curve. *Does it?*

# %%
linear = train_or_load("linear", params, data, seed)
(rate_1,), (distortion_1,) = linear_curve([1.0])
train = linear.summary["train"]
print(f"curve at β 1: rate {rate_1:.1f}, distortion {distortion_1:.1f}")
print(f"linear VAE:   rate {train['kl']:.1f}, distortion {train['reconstruction']:.1f}")

# %% [markdown]
# ## Which details drown?
#
# Take the images apart into waves (a discrete cosine transform), coarse ones to the left, fine ones
# to the right. How much of each wave's power does a reconstruction get right?


# %%
def explained(model, images):
    """Return the share of the images' power that reconstructions explain, by spatial frequency."""
    original = images.double().numpy() / 255
    error = original - model.reconstruct(images).double().numpy()
    power, lost = (
        (dctn(part, axes=(2, 3), norm="ortho") ** 2).mean((0, 1)) for part in (original, error)
    )
    side = np.arange(images.shape[-1])
    frequency = np.hypot(side[:, None], side).round().astype(int)
    count = [np.bincount(frequency.ravel(), part.ravel())[1 : len(side)] for part in (power, lost)]
    return 1 - count[1] / count[0]


# %% tags=["report"]
figure, axes = figures.panels(1, "What survives, from coarse to fine", (10, 5))
for index, (beta, run) in enumerate(conv.items()):
    style = figures.LINES[index % len(figures.LINES)]
    share = explained(run.model, data.test[:1_000])
    axes[0, 0].plot(
        range(1, len(share) + 1), share, style, color=run.model.colour, label=f"CVAE, β {beta:g}"
    )
share = explained(linear.model, data.test[:1_000])
axes[0, 0].plot(range(1, len(share) + 1), share, color=LinearVAE.colour, label="linear VAE, β 1")
axes[0, 0].axhline(0, color="black", linewidth=1)
axes[0, 0].set(xlabel="half waves across the image", ylabel="share of the power explained")
axes[0, 0].set_ylim(-0.1, 1.02)
axes[0, 0].legend()
plt.show()

# %% [markdown]
# The fine waves go first, and the dearer the nats, the earlier: an image has most of its power in
# coarse waves. A blurred image is what is left when each wave is bought only if it is worth its
# price. The same decoder that blurs the star at β = 10 draws its points at β = 0.1. How much a nat
# buys is the model's part in it: at the same price the linear one keeps far less.
#
# ## So why not make nats cheap?
#
# *Would you rather have sharp reconstructions or sensible draws?* The same models, now imagining:

# %% tags=["report"]
rows = {f"β = {beta:g}": imagine(run.model, 10, seed + 1) for beta, run in conv.items()}
figures.image_rows(rows, f"Draws from the prior at different prices: CVAE {params}, {data.title}")
plt.show()

# %% [markdown]
# Cheap nats are spent: the edges of the first row are sharp, but of fewer and fewer things that
# have a name. What has been said at length cannot be guessed by a draw from N(0, 1), for the
# posterior of each image is a narrow spot, and the spots leave the prior empty between them; [00
# and 09](09_holes_and_meaning.ipynb) show where that ends, at β = 0.0001. Sharp costs the
# imagination. Dear nats leave one blurred image of everything.
#
# ## Is there a β that is right?
#
# The squared error is the likelihood of a Gaussian decoder with variance β / 2. Let the images say
# what it is (the σ-VAE of Rybkin et al. 2021, arXiv:2006.13202): the variance that a decoder leaves
# must be the variance that it was trained with. For the linear model that is a fixed point:

# %%
beta = 1.0
for _ in range(100):
    (rate_own,), (distortion_own,) = linear_curve([beta])
    beta = 2 * distortion_own / len(variances)
print(
    f"linear VAE with {latents} latents: β = {beta:.4f}, where an image takes {rate_own:.0f} nats "
    f"and keeps a squared error of {distortion_own:.2f}"
)

# %% [markdown]
# That is far to the right of the study's β = 1, and would be further with more latents: a
# Gaussian that explains pixels wants every pixel. The likelihood does not ask for images that are
# pleasant to imagine.
#
# ## Now you
#
# Set a price, and see what a linear model makes of it. *At which β is a face, a shape, a digit of
# your own recognisable?*

# %%
own_price = 0.05
own = LinearVAE(parameter_set("p3").latent_dim, tuple(data.train.shape[1:]))
own.fit(data.train[:3_000], own_price)
rows = {"original": data.test[:10], f"β = {own_price}": own.reconstruct(data.test[:10])}
rows["imagined"] = imagine(own, 10, seed)
figures.image_rows(rows, f"A linear VAE at a price of your own, {data.title}")
plt.show()

# %% [markdown]
# Next: [09, where are the holes, and what do the latents know?](09_holes_and_meaning.ipynb)
