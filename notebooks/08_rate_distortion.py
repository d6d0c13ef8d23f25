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
# Whoever trains a VAE asks this first. A VAE describes an image in nats (1 nat = 1.44 bits), and
# leaves out whatever saves less squared error than its description costs. For what is left out the
# decoder can only give the *mean* of all that it could have been, and a mean is blurred. The price
# of a nat is ours to set. It is β, the weight of the KL term (Higgins et al. 2017; Alemi et al.
# 2018, arXiv:1711.00464).

# %% tags=["parameters"]
params = "p2"
dataset = "published"  # or images of your own, which the lines below are for
seed = 0
betas = "0.01 0.1 1 10"
max_epochs = 60
limit = None
size = 32
precision = "auto"

# %%
import inspect
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.ticker import LogLocator
from scipy.fft import dctn

from vae_core import figures
from vae_core.config import parameter_set
from vae_core.data import dataset_info, load_dataset
from vae_core.intervals import format_mean_sd
from vae_core.latent import generate
from vae_core.models import MODELS, LinearVAE
from vae_core.runs import published_run, train_or_load
from vae_core.runs.results import read_results, result_row
from vae_core.storage import PROJECT
from vae_study.budgets import TUNING_SEED, on_full_images

prices = [float(beta) for beta in betas.split()]
models = ["linear", "fc", "conv"]
options = {"seed": seed, "max_epochs": max_epochs, "patience": 0, "schedule": "cosine"}
tuned = {"linear": 5e-4, "fc": 5e-4, "conv": 2e-3}  # the learning rates of 06
sets = {name: replace(parameter_set(params), learning_rate=tuned[name]) for name in models}
if dataset == "published":
    # Images of the built-in shapes, which are ours to show; numbers of both data sets
    data, title = load_dataset("shapes"), "CIFAR-10 (JPEG)"
    conv = {
        beta: published_run("conv", sets["conv"], "shapes", beta=beta, **options) for beta in prices
    }
    table = on_full_images(read_results(PROJECT / "figures" / "answer.csv"))
    table = table[table["model"].isin(models) & (table["seed"] != TUNING_SEED)]
    table = table[table["learning_rate"] == table["model"].map(tuned)]
    table = table.groupby(["model", "max_epochs"]).filter(lambda group: group["beta"].nunique() > 1)
else:
    data = load_dataset(dataset, limit=limit, fraction=dataset_info(dataset).fraction, size=size)
    title = data.title
    runs = {
        (name, beta): train_or_load(
            name, sets[name], data, beta=beta, precision=precision, **options
        )
        for name in models
        for beta in prices
    }
    conv = {beta: runs["conv", beta] for beta in prices}
    table = pd.DataFrame([result_row(run) for run in runs.values()])
table = table.sort_values("beta")
longest = table.groupby("model")["max_epochs"].max()


def look(name, epochs):
    """Return how a model's line looks and what it is called: the longest training's is solid."""
    line, model = "-" if epochs == longest[name] else "--", MODELS[name]
    label = model.title if name == "linear" else f"{model.title}, {epochs} epochs"
    return {"color": model.colour, "linestyle": line, "marker": "o", "label": label}


# %% tags=["report"]
rows = {"original": data.test[:10]}
for beta, run in conv.items():
    test = run.summary["test"]
    label = f"β = {beta:g}: {test['kl']:.0f} nats,\nerror {test['reconstruction']:.1f}"
    rows[label] = run.model.reconstruct(data.test[:10])
figures.image_rows(rows, f"The same images at different prices: CVAE {params}, {data.title}")
plt.show()

# %% [markdown]
# Four networks of the same layers, trained equally often. To the first a nat costs a hundredth of a
# squared error, and it describes each image at length; to the last it costs ten, and at that price
# little more than dark or light, warm or cold is still told. In between they leave out what pays
# least, the sharpness of an edge first.
#
# ## What does a nat buy?
#
# Give the blur a scale. To the right: the *rate*, what a model says about an image in nats (the KL
# term, which bounds from above what the latents tell of it). Upwards: the *distortion*, the squared
# error that remains. A training at β looks for the point with the least distortion + β · rate. The
# images above are the built-in shapes, which are ours to show; these numbers are of photographs.
# *The dotted curve joins all points that cost as much as the linear VAE's at β = 1. Where does the
# linear VAE's line meet it, and may it cross?*

# %% tags=["report"]
figure, (axes,) = figures.panels(2, f"Rate and distortion on the test images, {title}", (14, 6.5))
solved, above = table[table["model"] == "linear"].set_index("beta"), {}
price = 1 if 1 in solved.index else prices[0]
same = solved.at[price, "test_loss"]
for (name, epochs), points in table.groupby(["model", "max_epochs"]):
    displayed, style = points.groupby("beta").mean(numeric_only=True), look(name, epochs)
    axes[0].plot(displayed["test_kl"], displayed["test_reconstruction"], **style)
    above[name, epochs] = (displayed["test_loss"] - solved["test_loss"]).dropna()
    axes[1].plot(above[name, epochs].index, above[name, epochs], **style)
    seeds = points["test_loss"] - points["beta"].map(solved["test_loss"])
    axes[1].plot(points["beta"], seeds, "x", color=style["color"], alpha=0.7)
    if name != "linear":
        parts = [
            f"{format_mean_sd(group.tolist())} at β {beta:g}"
            for beta, group in seeds.groupby(points["beta"])
        ]
        print(f"{style['label']}, above the linear VAE: {', '.join(parts)}")
note = {"fontsize": 11, "color": LinearVAE.colour, "textcoords": "offset points"}
for beta, rate, error in solved[["test_kl", "test_reconstruction"]].itertuples():
    axes[0].annotate(f"β {beta:g}", (rate, error), xytext=(-6, -15), ha="right", **note)
at_price = table[table["beta"] == price].groupby(["model", "max_epochs"]).mean(numeric_only=True)
label, ring = f"β = {price:g}", {"ms": 15, "mfc": "none", "mec": "black"}
axes[0].plot(at_price["test_kl"], at_price["test_reconstruction"], "o", **ring, label=label)
rates = np.linspace(3, 0.85 * same / price, 200)
label = f"distortion + {price:g} · rate = {same:.0f}"
axes[0].plot(rates, same - price * rates, "k:", label=label)
axes[0].set(xscale="log", yscale="log", xlabel="rate: KL, nats per image")
axes[0].set_ylabel("distortion: squared error per image")
axes[1].axhline(0, color=LinearVAE.colour)
axes[1].set(xscale="log", xlabel="β, the price of a nat in squared error")
axes[1].set_ylabel("loss above that of the linear VAE, squared error per image")
for along in (axes[0].xaxis, axes[0].yaxis, axes[1].xaxis):
    along.set_major_locator(LogLocator(subs=(1, 2, 5) if along.axes is axes[0] else (1,)))
    along.set_major_formatter("{x:g}")
    along.set_minor_formatter("")
axes[0].legend(fontsize=10)
plt.show()

# %% [markdown]
# It touches and does not cross: the linear VAE is solved (on the training images), so no other
# linear model of 128 latents has a lower loss at β = 1. On axes that are not logarithmic its line
# leaves that point with the slope −β: to the right more would be said than it is worth, to the left
# less. A curve is a model, a point on it a taste, and *better* is a curve that lies further down
# and to the left. One number at β = 1 (the rings) compares two models at one price only. (From β =
# 0.1 down the linear VAE uses all its latents, and more of them would help it.)
#
# The right-hand panel is the same as one number: how much more each pays than a matrix at the same
# price. (Lines are means over seeds; crosses are all seeds, one where there is no ±. A single one
# may be off by a nat, the FC-VAE's at β = 10 by more. The learning rates are those that suit β =
# 1.) After the small budget (dashed; the smallest of 06) the FC-VAE pays more at every price; the
# CVAE five to seven more where nats are cheap, and from β = 0.3 on by two at most. After four times
# as long the CVAE pays some three less between β = 0.3 and 3, and about one less, which one seed
# cannot tell from nothing, at the others. The FC-VAE is the matrix's equal from β = 1 on; where
# nats are cheap it still pays ten units of squared error more.
#
# *So how much is a convolution worth? At which price?* The difference of 06 is that at β = 1. After
# the longer trainings:

# %% tags=["report"]
apart = (above["fc", longest["fc"]] - above["conv", longest["conv"]]).dropna()
parts = ", ".join(f"{nats:.1f} at β {beta:g}" for beta, nats in apart.items())
print(f"the FC-VAE pays more than the CVAE, in squared error per image, by {parts}")

# %% [markdown]
# A great deal where nats are cheap, next to nothing where they are dear. Cheap nats ask for detail,
# and detail is what the FC-VAE takes longest to learn. (One seed but for β = 1.)
#
# ## The water level
#
# For a linear model all of this is two lines of code. The images vary along 3072 directions, some
# strongly and most hardly at all; β / 2 is a water level. What stands out of the water is
# described, a latent a direction as long as there are latents, up to the error that the level
# allows. What lies below it drowns: it is not described at all. On the built-in shapes, whose
# directions can be counted here:

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
axes[0, 0].plot(np.arange(1, 501), variances[:500], color=LinearVAE.colour)
axes[0, 0].axvline(latents, color="black", linestyle=":", label=f"{latents} latents")
axes[0, 0].legend(loc="upper center")
for beta in prices:
    kept = int((variances > beta / 2).sum())
    axes[0, 0].axhline(beta / 2, color="black", linewidth=1)
    text = f"β {beta:g}: {kept} directions stand out"
    axes[0, 0].annotate(text, (135, beta / 2), ha="left", va="bottom", fontsize=10)
axes[0, 0].set(xlabel="principal direction, the strongest first", yscale="log")
axes[0, 0].set_ylabel("variance, squared values in [0, 1]")
plt.show()

# %% [markdown]
# The linear VAE of the baselines does the same to a data set, and never trains:

# %%
print(inspect.getsource(LinearVAE.fit))

# %% [markdown]
# It has to be where those two lines say. *Is it? And how much more does a network get for its nats,
# which may bend its directions?*

# %%
linear = train_or_load("linear", params, data, seed)
train, strong = linear.summary["train"], variances[:latents]
print(f"linear VAE at β 1: rate {train['kl']:.1f}, distortion {train['reconstruction']:.1f}")
for beta, run in conv.items():
    rate, error = linear_curve(beta)
    described = np.minimum(strong, beta / 2)[strong > beta / 2].sum()
    print(f"curve at β {beta:g}: rate {rate:.1f}, distortion {error:.1f}", end=" ")
    print(f"({described:.1f} of it in described directions);", end=" ")
    test = run.summary["test"]
    print(f"CVAE: {test['kl']:.1f}, {test['reconstruction']:.1f}")

# %% [markdown]
# It is. And the network needs a fraction of the error for as many nats, for it may bend its
# directions along with the images: a shape that moves is a straight line for nobody but itself.
# (These are shapes, where there is much to be bent; on photographs, above, the two are nearly
# even.) At β = 10, where a nat says a colour and little else, there is nothing to be bent, and the
# matrix is no worse.
#
# ## Which details drown?
#
# Take the images apart into waves (a discrete cosine transform), coarse ones to the left, fine ones
# to the right. How much of each wave's power does a reconstruction get right? (What all images have
# in common, their mean, is taken off first: that takes no nats.)


# %%
def explained(model, images):
    """Return what share of the power about the mean image is right, by spatial frequency."""
    original = images.double().numpy() / 255
    error = original - model.reconstruct(images).double().numpy()
    odd = original - data.train.double().mean(0).numpy() / 255
    power, lost = (
        (dctn(part, axes=(2, 3), norm="ortho") ** 2).mean((0, 1)) for part in (odd, error)
    )
    side = np.arange(images.shape[-1])
    frequency = np.hypot(side[:, None], side).round().astype(int)
    count = [np.bincount(frequency.ravel(), part.ravel())[1 : len(side)] for part in (power, lost)]
    return 1 - count[1] / count[0]


# %% tags=["report"]
figure, axes = figures.panels(1, f"What survives, from coarse to fine, {data.title}", (10, 5))
for index, (beta, run) in enumerate(conv.items()):
    style = {"linestyle": figures.LINES[index % len(figures.LINES)]}
    style |= {"color": run.model.colour, "alpha": 1 - 0.6 * index / max(1, len(conv) - 1)}
    share = explained(run.model, data.test[:1_000])
    axes[0, 0].plot(range(1, len(share) + 1), share, **style, label=f"CVAE, β {beta:g}")
share = explained(linear.model, data.test[:1_000])
axes[0, 0].plot(range(1, len(share) + 1), share, color=LinearVAE.colour, label="linear VAE, β 1")
axes[0, 0].axhline(0, color="black", linewidth=1)
axes[0, 0].set(xlabel="half waves across the image", ylabel="share of the power explained")
axes[0, 0].set_ylim(-0.1, 1.02)
axes[0, 0].legend(loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()

# %% [markdown]
# The fine waves go first, and the dearer the nats, the earlier: an image has most of its power in
# coarse waves, and each is bought only if it is worth its price. The same layers that make a cloud
# of the star when they are trained at β = 10 draw its points at β = 0.1. How far a nat reaches
# depends on the model: at β = 1 the CVAE has waves that the linear VAE, for as many nats, has not
# begun with.
#
# ## So why not make nats cheap?
#
# *Would you rather have sharp reconstructions or sensible draws?* The same models, now imagining:

# %% tags=["report"]
rows = {f"β = {beta:g}": generate(run.model, 12, seed + 1) for beta, run in conv.items()}
figures.image_rows(rows, f"Draws from the prior at different prices: CVAE {params}, {data.title}")
plt.show()

# %% [markdown]
# Where nats are cheap a model uses many: the edges of the first row are sharp, but of fewer and
# fewer things that have a name. The KL term is the price of two things, of what z says about an
# image and of every way in which the cloud of all z differs from N(0, 1); where it is cheap, both
# grow. What has been said at length is not guessed by a draw. [05](05_posterior_collapse.ipynb)
# shows where that ends, at β = 0.0001, and [09](09_holes_and_meaning.ipynb) measures it. On these
# shapes, with the prior N(0, 1), sharp costs the imagination. Dear nats leave one blurred image of
# nearly everything.
#
# ## Is there a β that is right?
#
# The squared error is the likelihood of a Gaussian decoder whose pixels have the variance β / 2.
# Let the images say what it is (the σ-VAE of Rybkin et al. 2021, arXiv:2006.13202): the variance of
# the error that a decoder leaves should be the one that its loss assumed. *Where will that be: at
# a β above 1, or below?*

# %% tags=["report"]
figure, ((axis,),) = figures.panels(1, f"What a decoder leaves, {title}", (10, 5.5))
for (name, epochs), points in table[table["seed"] == seed].groupby(["model", "max_epochs"]):
    style = look(name, epochs)
    left = points["test_reconstruction"] / data.train[0].numel()
    axis.plot(points["beta"] / 2, left, **style)
    # Where the line crosses the diagonal
    over, price = np.log(points["beta"] / (2 * left)), np.log(points["beta"])
    if over.iloc[0] < 0 < over.iloc[-1]:
        group = np.exp(np.interp(0, over, price))
        rate = np.interp(np.log(group), price, points["test_kl"])
        axis.plot(group / 2, group / 2, "o", ms=16, mfc="none", mec=style["color"])
        print(f"{style['label']}: its own β is {group:.4f}; an image takes {rate:.0f} nats")
ends = table["beta"].agg(["min", "max"]) / 2
axis.plot(ends, ends, color="black", lw=1, label="as much as the loss assumed")
axis.set(xscale="log", yscale="log", xlabel="variance of a value that the loss assumes, β / 2")
axis.set(ylabel="squared error of a value, in [0, 1]²", ylim=(0.003, 0.1))
axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
axis.yaxis.set_minor_formatter("")
for along in (axis.xaxis, axis.yaxis):
    along.set_major_formatter("{x:g}")
axis.legend()
plt.show()

# %% [markdown]
# Far below: the images ask for a hundred nats and more where the study's β = 1 grants some twenty
# or less. (The own points of the linear VAE and of the CVAE after 32 epochs lie just beyond the
# left end of their lines.) It would be further still with more latents for the linear VAE, whose
# error is then smaller. The smaller the error that a model leaves, the lower its own β. Of the
# three balances in [05](05_posterior_collapse.ipynb), (c), the study's, is far too dear by this
# measure, and (b), 0.0001, far too cheap: the likelihood asks for neither, and does not ask for
# images that are pleasant to generate.
#
# ## Now you
#
# Set a price, and see what a linear model makes of it. *At which β is a star no longer a disc?*
# (With `dataset = "faces"`, or a folder of yours, among the parameters: one face from another?)

# %%
own_price = 0.05
group = LinearVAE(parameter_set("p3").latent_dim, tuple(data.train.shape[1:]))
group.fit(data.train[:3_000], variance=own_price / 2)
rows = {"original": data.test[:10], f"β = {own_price}": group.reconstruct(data.test[:10])}
rows["imagined"] = generate(group, 10, seed)
figures.image_rows(rows, f"A linear VAE at a price of your own, {data.title}")
plt.show()

# %% [markdown]
# Next: [09, where are the holes, and what do the latents know?](09_holes_and_meaning.ipynb)
