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
from matplotlib.ticker import LogLocator
from scipy.fft import dctn

from vae_core import figures
from vae_core.baselines import LinearVAE
from vae_core.data import facts, load_dataset
from vae_core.experiment import published_run, train_or_load
from vae_core.latent import imagine
from vae_core.models import MODELS
from vae_core.parameter_sets import parameter_set
from vae_core.storage import PROJECT
from vae_core.tables import as_it_is, read_results, result

prices = [float(beta) for beta in betas.split()]
models = ["linear", "fc", "conv"]
if dataset == "published":
    # Images of the built-in shapes, which are ours to show; numbers of both data sets
    data, title = load_dataset("shapes"), "CIFAR-10 (JPEG)"
    conv = {beta: published_run("conv", params, "shapes", seed, beta=beta) for beta in prices}
    table = as_it_is(read_results(PROJECT / "figures" / "answer.csv"))
    table = table[table["model"].isin(models) & (table["seed"] == seed)]
    table = table.groupby(["model", "max_epochs"]).filter(lambda own: own["beta"].nunique() > 1)
else:
    data = load_dataset(dataset, limit=limit, fraction=facts(dataset).fraction, size=size)
    title, options = data.title, {"seed": seed, "max_epochs": max_epochs, "precision": precision}
    runs = {
        (name, beta): train_or_load(name, params, data, beta=beta, **options)
        for name in models
        for beta in prices
    }
    conv = {beta: runs["conv", beta] for beta in prices}
    table = pd.DataFrame([result(run) for run in runs.values()])
table = table.sort_values("beta")

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
# Give the blur a scale. To the right: the *rate*, what a model says about an image in nats (the KL
# term). Upwards: the *distortion*, the squared error that remains. A training at β looks for the
# point with the least distortion + β · rate. *All points of the dotted curve are worth the same at
# β = 1. Where will the line of the model whose loss that is meet it, and may it cross?*

# %% tags=["report"]
figure, (axes,) = figures.panels(2, f"Rate and distortion on the test images, {title}", (14, 6.5))
solved = table[table["model"] == "linear"].set_index("beta")
for (name, epochs), points in table.groupby(["model", "max_epochs"]):
    model = MODELS[name]
    longest = epochs == table["max_epochs"][table["model"] == name].max()
    look = {"color": model.colour, "linestyle": "-" if longest else "--", "marker": "o"}
    label = model.title if name == "linear" else f"{model.title}, {epochs} epochs"
    axes[0].plot(points["test_kl"], points["test_reconstruction"], label=label, **look)
    above = (points.set_index("beta")["test_loss"] - solved["test_loss"]).dropna()
    axes[1].plot(above.index, above, label=label, **look)
    if name != "linear":
        told = ", ".join(f"{value:+.1f} at β {beta:g}" for beta, value in above.items())
        print(f"{label}: {told}")
for beta, rate, error in solved[["test_kl", "test_reconstruction"]].itertuples():
    text = {"xytext": (-4, -14), "textcoords": "offset points", "ha": "right", "fontsize": 9}
    axes[0].annotate(f"β {beta:g}", (rate, error), **text)
price = prices[len(prices) // 2]
same = solved.at[price, "test_loss"]
rates = np.linspace(3, 0.85 * same / price, 200)
label = f"distortion + {price:g} · rate = {same:.0f}"
axes[0].plot(rates, same - price * rates, "k:", label=label)
axes[0].set(xscale="log", yscale="log", xlabel="rate: KL, nats per image")
axes[0].set_ylabel("distortion: squared error per image")
axes[1].set(xscale="log", xlabel="price of a nat, β")
axes[1].set_ylabel("loss above that of the linear VAE, nats per image")
for along in (axes[0].xaxis, axes[0].yaxis, axes[1].xaxis):
    along.set_major_locator(LogLocator(subs=(1, 2, 5) if along.axes is axes[0] else (1,)))
    along.set_major_formatter("{x:g}")
    along.set_minor_formatter("")
axes[0].legend(fontsize=10)
plt.show()

# %% [markdown]
# It touches, and cannot cross: the dotted curve is the best that β = 1 has to give, so a model's
# line leaves the point where it stands with the slope −β. To the right of it more would be said
# than it is worth, to the left less. A curve is a model, a point on it a taste, and *better* is a
# curve that lies further down and to the left.
#
# The right-hand panel is the same as one number: how much more each pays than a matrix at the same
# price. After the small budget (dashed; the smallest of 06) both networks pay more than the matrix
# at *every* price, and the cheaper the nats, the more. After four times as long (three prices) the
# CVAE is below it everywhere, and the FC-VAE where nats are dear; where they are cheap it is still
# some ten nats above. Cheap nats ask for detail, and detail is what the FC-VAE is slow to learn.
# One number at β = 1 compares two models at one price only. (One seed each; in 06 seeds differ by
# some tenths. The learning rates are those that suit β = 1.)
#
# ## The water level
#
# For a linear model all of this is two lines of code. The images vary along 3072 directions, some
# strongly and most hardly at all; β / 2 is a water level. What stands out of the water is
# described, a latent a direction. What lies below it drowns: it is not described at all, and *that
# is the blur*. On the built-in shapes, whose directions can be counted here:

# %%
pixels = data.train.flatten(1).float() / 255
variances = torch.linalg.eigvalsh(torch.cov(pixels.T, correction=0)).flip(0).clamp(1e-9).numpy()
latents = parameter_set(params).latent_dim


def linear_curve(beta):
    """Return rate and distortion of the best linear encoder and decoder.

    Every direction of the data is filled with error up to the water level beta / 2 (Cover & Thomas,
    "reverse water-filling"); what stands out of it takes a latent.
    """
    level, strong = beta / 2, variances[:latents]
    rate = 0.5 * np.log(np.maximum(strong / level, 1)).sum()
    return rate, np.minimum(strong, level).sum() + variances[latents:].sum()


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
# The linear VAE has to be where those two lines say. *Is it?*

# %%
linear = train_or_load("linear", params, data, seed)
rate, distortion = linear_curve(1.0)
train = linear.summary["train"]
print(f"curve at β 1: rate {rate:.1f}, distortion {distortion:.1f}")
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
# The squared error is the likelihood of a Gaussian decoder whose pixels have the variance β / 2.
# Let the images say what it is (the σ-VAE of Rybkin et al. 2021, arXiv:2006.13202): the variance
# that a decoder leaves must be the one that it was trained with. *Where will that be: at a β above
# 1, or below?*

# %% tags=["report"]
figure, ((axis,),) = figures.panels(1, f"What a decoder leaves, {title}", (10, 5.5))
for name in models:
    points, model = table[table["model"] == name], MODELS[name]
    points = points[points["max_epochs"] == points["max_epochs"].min()]
    left = points["test_reconstruction"] / data.train[0].numel()
    axis.plot(points["beta"] / 2, left, "o-", color=model.colour, label=model.title)
    # Where the line crosses the diagonal
    over, price = np.log(points["beta"] / (2 * left)), np.log(points["beta"])
    if over.iloc[0] < 0 < over.iloc[-1]:
        own = np.interp(0, over, price)
        rate = np.interp(own, price, points["test_kl"])
        print(f"{model.title}: its own β is {np.exp(own):.3f}; an image takes {rate:.0f} nats")
ends = table["beta"].agg(["min", "max"]) / 2
axis.plot(ends, ends, color="black", lw=1, label="the variance that it was trained with")
axis.set(xscale="log", yscale="log", xlabel="variance of a pixel that the loss assumes, β / 2")
axis.set_ylabel("squared error of a pixel")
axis.legend()
plt.show()

# %% [markdown]
# Far below: the images ask for a hundred nats and more where the study's β = 1 grants twenty. (The
# linear VAE's own point lies just beyond the left end of its line.) It would be further still with
# more latents, for a Gaussian that explains pixels wants every pixel. And the better a model, the
# smaller the error that it leaves and the lower its own β. The likelihood does not ask for images
# that are pleasant to imagine.
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
