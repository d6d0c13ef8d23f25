# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Where are the holes, and what do the latents know?
#
# Two promises of a latent space, put to the test on images whose making is known. *Every draw from
# N(0, 1) decodes to something sensible*: then what the encoder fills and what the prior draws are
# one cloud. *The latents know what is in the image*: then a linear map reads its colour, its place,
# its light off them.

# %% tags=["parameters"]
params = "p2"
dataset = "shapes"
seed = 0
max_epochs = 100
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

from vae_core import figures
from vae_core.config import parameter_set
from vae_core.data import load_dataset, synthetic
from vae_core.evaluation import posterior_statistics, ridge_regression
from vae_core.intervals import format_mean_sd
from vae_core.latent import posterior_means, posterior_samples, prior_samples, to_uint8
from vae_core.models import MODELS
from vae_core.runs import published_run, train_or_load
from vae_core.runs.results import read_results
from vae_core.storage import PROJECT
from vae_study.budgets import LADDER, TUNING_SEED, on_full_images, tuned_runs

data = load_dataset(dataset, limit=limit, size=size)
options = {"seed": seed, "max_epochs": max_epochs, "precision": precision}
runs = {
    "CVAE": train_or_load("conv", params, data, **options),
    "FC-VAE": train_or_load("fc", params, data, **options),
    "linear VAE": train_or_load("linear", params, data, **options),
    "CVAE, KL × 0.0001": train_or_load("conv", params, data, beta=1e-4, **options),
}
models = {name: run.model for name, run in runs.items()}
VAES = ("CVAE", "FC-VAE", "linear VAE")  # with the whole KL term
COLOURS = {"CVAE": "#00798c", "FC-VAE": "#d1495b", "linear VAE": "#5b5f97"}
COLOURS |= {"CVAE, KL × 0.0001": "#8a6d00", "pixels": "#777777"}


# %% tags=["report"]
@torch.no_grad()
def decoded(model, z):
    """Decode latents into uint8 images."""
    return to_uint8(model.decode(z))


rows = {}
for name, model in models.items():
    rows[f"{name}: encoded"] = decoded(model, posterior_samples(model, data.test[:10], seed))
    rows[f"{name}: imagined"] = decoded(model, prior_samples(model, 10, seed + 1))
figures.image_rows(rows, "Decoded: draws from the posterior of test images, draws from the prior")
plt.show()

# %% [markdown]
# Look at the rows in pairs. If the prior were the cloud that the encoder fills, the two rows of a
# pair would be equally good. *Which pair differs most?* The last: with hardly any KL term the
# encoder may put its codes where it likes, it reconstructs best of all, and nobody is at home where
# N(0, 1) draws. (One seed each: the published CVAE and FC-VAE of 01, stopped by the study's rule.
# What differs here is these networks, not every network of their kind.)
#
# ## Can a machine tell them apart?
#
# Call a *hole* a place where N(0, 1) draws often and the encoder seldom puts a code. An eye can be
# fooled, so ask a classifier: was this image encoded or drawn? If the two clouds are one, nothing
# helps, and it is right half of the time (Lopez-Paz & Oquab 2017, arXiv:1610.06545; the converse
# does not hold, for a classifier may be too weak to see a difference). It sees the numbers by which
# the linear VAE describes any image (26 of the shapes), with their squares and with 500 random
# waves through all of them (Rahimi & Recht 2007), so that it can notice what goes together. It
# learns on one half and is asked about the other.
#
# A third cloud tells *where* the two differ. Encode other images, and **shuffle** each latent by
# itself: every latent keeps all its values, and which of them belong to one image is lost. So what
# tells the encoded from the shuffled lies between the latents, and what tells the shuffled from the
# drawn lies within one. (Chen et al. 2018, arXiv:1802.04942, split the KL term like this: these are
# two of its three parts.)


# %%
def curved(rows, reach=1.6):
    """Return features that a linear map can bend with: rows [N, D], squares, 500 random waves."""
    rng = np.random.default_rng(seed)
    x = (rows - rows.mean(0)) / (rows.std(0) + 1e-6)
    waves = x @ rng.normal(0, reach / x.shape[1] ** 0.5, (x.shape[1], 500))
    return np.column_stack([x, x**2, np.cos(waves + rng.uniform(0, 2 * np.pi, 500))])


def told_apart(subset, others):
    """Return how often rows of two arrays are told apart by a classifier, on unseen halves."""
    features = curved(np.concatenate([subset, others]))
    labels = np.repeat([1.0, -1.0], [len(subset), len(others)])
    learn, held_out = np.array_split(np.random.default_rng(seed).permutation(len(labels)), 2)
    predicted = ridge_regression(features[learn], labels[learn], features[held_out], ridge=1e-2)
    return float((np.sign(predicted) == labels[held_out]).mean())


def in_use(carried, least):
    """Say which latents carry more than so much; the busiest one does in any case."""
    return carried >= min(least, float(carried.max()))


def shuffled(z):
    """Shuffle each latent of z [N, latent_dim] by itself."""
    return torch.tensor(np.random.default_rng(seed).permuted(z.numpy(), axis=0))


# %% tags=["report"]
faster, of_08 = replace(parameter_set(params), learning_rate=2e-3), {"max_epochs": 60}
of_08 |= {"seed": seed, "patience": 0, "schedule": "cosine", "precision": precision}
between = train_or_load("conv", faster, data, beta=0.01, **of_08).model
n, linear = min(5_000, len(data.train) // 2), models["linear VAE"]
described = (linear.to_mu.weight != 0).any(1).numpy()
accuracy, by_latents, compared = {}, {}, {name: models[name] for name in VAES}
compared |= {"CVAE, KL × 0.01": between} | models
for name, model in compared.items():
    clouds = {
        "encoded": posterior_samples(model, data.train[:n], seed),
        "shuffled": shuffled(posterior_samples(model, data.train[n : 2 * n], seed)),
        "drawn": prior_samples(model, n, seed + 2),
        "drawn again": prior_samples(model, n, seed + 3),
    }
    seen = {
        cloud: posterior_means(linear, decoded(model, z)).numpy()[:, described]
        for cloud, z in clouds.items()
    }
    pairs = [("encoded", "drawn"), ("encoded", "shuffled"), ("shuffled", "drawn")]
    pairs.append(("drawn", "drawn again"))  # where there is nothing to be told
    accuracy[name] = {f"{item} or {two}": told_apart(seen[item], seen[two]) for item, two in pairs}
    used = in_use(posterior_statistics(model, data.test)["kl"], 0.1)
    latents = {cloud: z.numpy()[:, used] for cloud, z in clouds.items()}
    by_latents[name] = [told_apart(latents[item], latents[two]) for item, two in pairs[:3]]
figure, ((axis,),) = figures.panels(
    1, f"Two clouds told apart by their images, {data.title}", (10, 4)
)
for place, label in enumerate(accuracy["CVAE"]):
    heights = [result[label] for result in accuracy.values()]
    places = np.arange(len(compared)) + 0.21 * place
    axis.bar(places, np.array(heights) - 0.5, 0.2, bottom=0.5, label=label)
axis.axhline(0.5, color="black", linewidth=1)
axis.set_xticks(np.arange(len(compared)) + 0.3, compared)
axis.set(ylabel="share that the classifier gets right", ylim=(0.45, 1.02))
axis.legend(title=f"{n:,} of each; line: no difference", loc="upper left")
plt.show()
for name, result in accuracy.items():
    print(f"{name}: {', '.join(f'{label} {value:.2f}' for label, value in result.items())}")
print("\nthe first three, of the latents themselves (those of more than 0.1 nats):")
for name, result in by_latents.items():
    print(f"latents of {name}: {', '.join(f'{value:.2f}' for value in result)}")
print(f"\na share of {n:,} answers is uncertain by ±{1.96 * 0.5 / np.sqrt(n):.3f} (95 %)")

# %% [markdown]
# (The bars begin at one half, where nothing can be told; so the fourth, of two clouds that are both
# drawn, has to be as good as invisible.) Of the three VAEs the two left bars are about equally
# high, and the third is hardly above the line. Each latent by itself is *nearly* what N(0, 1)
# promises; most of what this classifier finds is how latents go *together*, and the decoder, which
# knows which combinations occur, shows it. So the holes of a VAE lie between the axes. Even the
# linear VAE has them, whose codes have the mean and the spread of N(0, 1) and no correlation by
# construction: shapes are no Gaussian cloud, and no matrix makes them one. (A model is compared
# with itself. The holes are not the decoder's doing, for the latents themselves tell of them too.
# But asked there, the three are nearly alike: that the CVAE's draws are the most easily told is for
# the most part its sharper painting, in which there is more to be noticed.)
#
# With a hundredth of the KL term (the sharp CVAE of 08, trained as there) the holes are everywhere,
# and the third bar says that a single latent is no longer where N(0, 1) draws either. With next to
# none of it, every draw is told at once (05 draws from where its codes are).
#
# ## What do the latents know?
#
# Every shape was drawn from factors: its kind, colour, place, size, angle (by up to 14 degrees),
# the light (from the left to from the right). Encode images, lay a linear map from z to each
# factor, and ask on images it has not seen. It is a draw from the posterior that is asked, which is
# all that a decoder hears. (The means know more: in a latent that is not used mu still varies with
# the image by a tiny amount. A map that scales each latent to a standard deviation of 1 can read
# that; in a draw noise covers it.) *Which factors do you expect to be easy, and is anything lost
# against the pixels themselves?*


# %%
print(inspect.getsource(ridge_regression))


def targets_of(factors):
    """Return the factors as numbers: an angle on the colour wheel as its sine and cosine."""
    wheel = 2 * np.pi * factors["hue"]
    known = {"colour": np.column_stack([np.cos(wheel), np.sin(wheel)])}
    for name, count in (("kind", len(synthetic.KINDS)), ("background", 4)):
        known[name] = np.eye(count)[factors[name]]
    return known | {name: factors[name][:, None] for name in ("x", "y", "size", "angle", "light")}


images, factors = synthetic.shapes(6_000, seed + 9, size)
targets = targets_of(factors)
views = {name: posterior_samples(model, images, seed).numpy() for name, model in models.items()}
means = {name: posterior_means(model, images).numpy() for name, model in models.items()}
pixels = torch.nn.functional.avg_pool2d(images / 255, size // 16).flatten(1).numpy()
views["pixels"] = pixels
learn, held_out = slice(0, 5_000), slice(5_000, None)


def read_off(features):
    """Return what a linear map predicts of each factor, and the share of its variance, R²."""
    parts, share = {}, {}
    for factor, values in targets.items():
        parts[factor] = ridge_regression(features[learn], values[learn], features[held_out])
        error, apart = values[held_out] - parts[factor], values[held_out] - values[learn].mean(0)
        share[factor] = 1 - (error**2).sum() / (apart**2).sum()
    return parts, share


known = pd.DataFrame({view: read_off(features)[1] for view, features in views.items()})

# %% tags=["report"]
figure, axes = figures.panels(1, "What a linear map reads off draws of the latents", (12, 4.2))
for place, view in enumerate(known):
    places = np.arange(len(known)) + 0.17 * (place - 2)
    axes[0, 0].bar(places, known[view], 0.16, label=view, color=COLOURS[view])
axes[0, 0].set_xticks(range(len(known)), known.index)
axes[0, 0].set(ylabel="share of its variance, R²", ylim=(min(0, known.min().min()), 1.02))
axes[0, 0].legend(ncols=5, fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.12))
plt.show()
known.round(2)

# %% [markdown]
# A linear map reads colour and light most easily, place in the CVAE far more than in the other two,
# as if it had kept a plan of the image; in the FC-VAE everything least of all. The almost free code
# (KL × 0.0001) tells nearly all that the pixels (averaged to 16×16) tell, except the background.
# *So have the others thrown the rest away?* That a map finds little says something of the map, not
# yet of the code. Here is one that may bend, with squares and waves of the latents that a model
# uses:

# %% tags=["report"]
bent = {}
laid = {name: in_use(means[name].var(0), 0.01) for name in models} | {"pixels": slice(None)}
for view, kept in laid.items():
    features = views[view][:, kept]
    parts, bent[f"{view} ({features.shape[1]})"] = read_off(curved(features))
    right = (parts["kind"].argmax(1) == factors["kind"][held_out]).mean()
    print(f"{view}: a curved map reads the kind of {right:.0%} of the images off a draw")
pd.DataFrame(bent).round(2)

# %% [markdown]
# (In brackets: how many numbers the map is given.) The almost free code shows how much it can find
# (a disc and a ring have no angle, so 1 cannot be reached). Colour is nearly all still there in all
# three, kind and place for the most part in the two networks and about half of them in the matrix.
# Of the size and of the angle that can be found the CVAE keeps about two thirds; the FC-VAE keeps
# less of the one and nothing of the other. The curved map reads the kind of nearly every image off
# the CVAE's few latents and the FC-VAE's still fewer; both networks know more than the matrix of
# nearly everything. What the CVAE has before the FC-VAE is geometry: place, size, angle. A map that
# finds nothing need not mean that nothing is there, and no loss asks a network to lay what it knows
# along straight lines.
#
# *And the angle: have all three thrown it away?* Perhaps each kind turns in a direction of its own,
# and one map for all of them misses it. So ask each kind for itself, with a linear one:

# %% tags=["report"]
angles = {}
for view, kept in laid.items():
    features, angles[view] = views[view][:, kept], {}
    for index, label in enumerate(synthetic.KINDS):
        (group,) = np.nonzero(factors["kind"] == index)
        half, other = np.array_split(group, 2)
        values = factors["angle"]
        error = values[other] - ridge_regression(
            features[half], values[half], features[other], ridge=1
        )
        angles[view][label] = 1 - (error**2).mean() / values[other].var()
print("share of the angle's variance that a linear map explains, each kind for itself")
pd.DataFrame(angles).round(2)

# %% [markdown]
# Not the CVAE: of a square, a heart, a star its draws tell most of the angle. The fully connected
# network's tell next to nothing, even where the map is made for one kind (but some of the star's,
# whose points are the least blurred of it). What no code and no pixel tells is the angle of a disc
# and of a ring, which have none. (Less than 0 is worse than the mean: some 430 images a kind are
# few to learn from.)
#
# ## And of photographs?
#
# Those are shapes, drawn from eight factors. CIFAR-10 has ten classes that nobody drew: airplane,
# cat, ship. A linear map from mu learns them from 10,000 labelled images and is asked about the
# 10,000 test images (guessing gets 10 %). The models are those of 06 and 07, on CIFAR-10 (JPEG),
# in order and with permuted pixels. *Does the lower loss know more?*

# %% tags=["report"]
answers = read_results(PROJECT / "figures" / "answer.csv")
answers = answers[answers["model"].isin([*LADDER, "linear"])]
solved = answers[answers["model"] == "linear"].set_index("beta")
tried = answers[(answers["model"] == "fc") & (answers["seed"] == TUNING_SEED)]
answers = tuned_runs(answers)
permuted = answers[answers["dataset"].str.contains("permuted1")]
figure, axes = figures.panels(
    1, "The class read off mu by a linear map, test images of CIFAR-10 (JPEG)", (11, 5)
)
for chosen, how in ((on_full_images(answers), ""), (permuted, ", permuted")):
    for name, group in chosen.groupby("model"):
        colour, title = MODELS[name].colour, MODELS[name].title
        style = {"mfc": "none" if how else colour, "mec": colour, "ms": 9, "label": title + how}
        axes[0, 0].plot(group["test_loss"], group["class_accuracy"], "o", **style)
axes[0, 0].set(xlabel="test loss, nats per image")
axes[0, 0].set_ylabel("share of images whose class is right (guessing: 0.1)")
axes[0, 0].legend(loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()
for (name, epochs), group in on_full_images(answers).groupby(["model", "epochs"]):
    right = f"{format_mean_sd(100 * group['class_accuracy'])} % right, test loss"
    print(f"{MODELS[name].title}, {epochs} epochs: {right} {format_mean_sd(group['test_loss'])}")
right, used = solved["class_accuracy"], solved["active_dimensions"]
parts = f"{used[0.1]:.0f} latents instead of {used[1]:.0f}: {100 * right[0.1]:.1f} % right"
print(f"linear VAE at β 0.1, {parts}")
for _, run in tried.sort_values("learning_rate").iterrows():
    right = f"{100 * run['class_accuracy']:.1f} % right, test loss {run['test_loss']:.1f}"
    print(f"FC-VAE, {run['epochs']} epochs, learning rate {run['learning_rate']:g}: {right}")
print("(a share of 10,000 answers is uncertain by ±1 %, 95 %; ± above: over seeds)")

# %% [markdown]
# *And of that, how much is sent?* The same kind of map for three of these models, from mu, from
# draws, and from the pixels of the same images, averaged to 16 × 16:

# %% tags=["report"]
group = {"seed": 0, "patience": 0, "schedule": "cosine"}
long = {"conv": (2e-3, 32), "fc": (5e-4, 104)}
sending = {
    name: published_run(
        name,
        replace(parameter_set("p2"), learning_rate=rate),
        "cifar10-jpeg",
        max_epochs=epochs,
        **group,
    )
    for name, (rate, epochs) in long.items()
}
sending["linear"] = published_run("linear", "p2", "cifar10-jpeg")
for run in sending.values():
    right = run.provenance["published"]["class_accuracy"]
    print(f"{run.model.title}: {right['mu']:.1%} off mu, {right['draws']:.1%} off a draw")
print(f"pixels: {right['pixels']:.1%}")

# %% [markdown]
# Read off mu, models with a convolutional encoder know most, 41 to 42 % at every budget; the FC-VAE
# is two to three points below, the less the longer it has trained. (A learning rate can make as
# much of a difference: at 0.001 the FC-VAE reads 34 %, and so, at that rate, does the FC encoder
# with a convolutional decoder, 35 %.) A linear map from the pixels gets 37 %, and the linear VAE 38
# % when nats are cheap enough for it to use all its latents. With permuted pixels every model with
# windows, in its encoder or its decoder, knows less than in order.
#
# But look at what is sent. Off a draw all three tell less, the networks lose more than the matrix,
# and it is the matrix that tells most (one training each). The encoders have *seen* more of the
# class than the pixels lay open, and a good part of it stays behind, in latents whose mu hardly
# varies: the map can still read that (it scales each to 1), but in a draw it is covered by noise.
# No decoder ever hears of it. So over all these models a lower loss mostly goes with a better
# reading of mu (not for the linear VAE), but the one that sends most has not the lowest: no loss
# here has asked for the class.
#
# ## Is a latent a factor?
#
# *Does one dimension carry the colour, another the place?* The share of each latent's variance that
# a linear map from each factor explains, for the latents that the CVAE uses:

# %%
mu = means["CVAE"]
used = np.argsort(mu.var(0))[::-1][: laid["CVAE"].sum()]
shares = {}
for factor, values in targets.items():
    predicted = ridge_regression(values[learn], mu[learn][:, used], values[held_out])
    error = mu[held_out][:, used] - predicted
    shares[factor] = 1 - error.var(0) / mu[held_out][:, used].var(0)
figure, axes = figures.panels(1, "Which factor explains which latent of the CVAE?", (12, 3.8))
text = axes[0, 0].imshow(np.clip(list(shares.values()), 0, 1), cmap="viridis", aspect="auto")
axes[0, 0].set_yticks(range(len(shares)), shares)
axes[0, 0].set_xticks(range(len(used)), used)
axes[0, 0].set(xlabel="latent, by its number, the most used first")
axes[0, 0].grid(visible=False)
figure.colorbar(text, ax=axes, label="share of its variance, linear")
plt.show()
strongest = max(share.max() for share in shares.values())
print(f"no factor explains more than {strongest:.2f} of a latent's variance")

# %% [markdown]
# A few: the background has two latents nearly for itself, the light more than half of one. Others,
# like the size, are spread thinly over several. The prior looks the same from every side, and the
# only axes that the loss asks for are those along which the encoder may blur (the posterior is
# diagonal; Rolinek et al. 2019, arXiv:1812.06775): axes of the images, as principal components are,
# and not of the factors. Measures of disentanglement that expect one factor on one axis ask for
# something that this model was never made for. The factor is there, but as a *direction*.
#
# ## Turn the knob
#
# The direction along which a factor grows is the mean of mu where it is large minus that where it
# is small. *Does only that factor change?*


# %%
def turned(image, factor, steps):
    """Move an image's mu by each of the steps along the direction of a factor, and decode."""
    values = factors[factor][learn]
    low, high = np.quantile(values, [0.2, 0.8])
    way = mu[learn][values > high].mean(0) - mu[learn][values < low].mean(0)
    return decoded(models["CVAE"], torch.tensor(mu[image] + steps[:, None] * way).float())


# %% tags=["report"]
steps = np.linspace(-2, 2, 9)
rows = {factor: turned(5_000, factor, steps) for factor in ("light", "x", "y", "size", "angle")}
labels = [f"{step:+.1f}" for step in steps]
figures.image_rows(rows, "One image, moved along the direction of a factor (CVAE)", labels)
plt.show()

# %% [markdown]
# At 0 stands the image as it was encoded; 1 is the distance between small and large (the lowest and
# the highest fifth). Close to 0 the
# knobs do what their names say. Far away they leave the cloud, and other things change with them: a
# moon that is moved too far becomes a ring. The angle hardly turns: this direction is a mean over
# all kinds, and each turns in a direction of its own. (The light is where it comes from, left to
# right.)
#
# ## Now you
#
# Turn another knob, on another image: which, how far, and what breaks first?

# %%
image, factor, reach = 7, "x", 4.0
steps = np.linspace(-reach, reach, 9)
figures.image_rows(
    {factor: turned(image, factor, steps)},
    f"Image {image}, moved along the direction of {factor} (CVAE)",
    [f"{step:+.1f}" for step in steps],
)
plt.show()

# %% [markdown]
# Or give the map fewer images. *How many labelled images does it take to read the kind from mu, and
# how many from pixels? And why is a draw so much worse?* (Above, "how much is sent?" has the
# answer.)

# %%
labelled = 200
few_seen = {view: {"draws": views[view], "mu": means[view]} for view in VAES}
for view, seen in (few_seen | {"pixels": {"themselves": pixels}}).items():
    for label, features in seen.items():
        few = features[:labelled], targets["kind"][:labelled], features[held_out]
        right = (ridge_regression(*few, ridge=0.1).argmax(1) == factors["kind"][held_out]).mean()
        print(f"{labelled} labelled images, {view}, {label}: the kind is right in {right:.0%}")

# %% [markdown]
# Next: [10, play](10_explorer.ipynb)
