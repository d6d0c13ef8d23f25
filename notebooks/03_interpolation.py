# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Is there something sensible between two images?
#
# Take two draws from the prior, walk from one to the other in nine equal steps, and decode all ten
# places. A latent space without holes has something good at each. (The reverse is not true: in 00 a
# model walks well although a third of its codes lie where draws hardly ever fall. What is looked at
# here is the way, and not the land beside it, which is for 09.) As stored, the notebook walks
# through the models that come with the repository, trained on faces and on CIFAR-10 (JPEG), and
# needs no data set; `dataset` takes any other.

# %% tags=["parameters"]
params = "p2"
dataset = "published"  # or images of your own, which the lines below are for
seed = 0
max_epochs = 100
limit = None
size = 32
precision = "auto"

# %%
import matplotlib.pyplot as plt
import torch
from scipy.stats import chi2

from vae_core import figures
from vae_core.data import dataset_info, load_dataset
from vae_core.evaluation import unevenness
from vae_core.intervals import format_mean_sd
from vae_core.latent import generate, interpolate, posterior_means, prior_samples, slerp
from vae_core.runs import published_run, train_or_load

# %%
if dataset == "published":
    runs = {
        "CVAE, faces": published_run("conv", params, "celeba-9k", seed),
        "CVAE, CIFAR-10": published_run("conv", params, "cifar10-jpeg", seed),
        "FC-VAE, CIFAR-10": published_run("fc", params, "cifar10-jpeg", seed),
    }
    first, title = runs["CVAE, faces"].model, "CelebA (first 9,000)"
    images, variant = generate(first, 100, seed + 2), "imagined"
else:
    data = load_dataset(dataset, limit=limit, fraction=dataset_info(dataset).fraction, size=size)
    options = {"seed": seed, "max_epochs": max_epochs, "precision": precision}
    runs = {
        "CVAE": train_or_load("conv", params, data, **options),
        "FC-VAE": train_or_load("fc", params, data, **options),
    }
    first, title = runs["CVAE"].model, data.title
    images, variant = data.test, "test"
models = {name: run.model for name, run in runs.items()}
shapes = published_run("conv", "p2", "shapes").model
linear = published_run("linear", "p2", "cifar10-jpeg").model

# %% tags=["report"]
figures.interpolations(
    {"CVAE": first}, f"Straight lines between two draws from the prior, {title}", 5, seed=seed
)
plt.show()

# %% [markdown]
# With two latents $z_1$ and $z_2$ and $\alpha$ from 0 to 1 in equal steps, the walk is
#
# $$z(\alpha) = (1 - \alpha)\, z_1 + \alpha\, z_2$$
#
# and every step of it is an image. It looks as if features changed one into the other.
#
# ## Is that not just a cross-fade?
#
# *Mix the two end images pixel by pixel instead, without any model. Would you have told the two
# apart?* Below them the same for the CVAE of the built-in shapes.

# %% tags=["report"]
z, draws = prior_samples(first, 10, seed), prior_samples(shapes, 2, 3)
alpha = torch.linspace(0, 1, 10).view(-1, 1, 1, 1)
rows = {}
for name, model, ends in ((title, first, z[:2]), ("stored CVAE of shapes", shapes, draws)):
    walk = interpolate(model, *ends)
    rows[f"{name},\nlatents mixed"] = walk
    rows[f"{name},\npixels mixed"] = (1 - alpha) * walk[0] + alpha * walk[-1]
figures.strips(rows, "Walks of CVAEs, and cross-fades with the same ends")
plt.show()

# %% tags=["report"]
walkers = {**models, "CVAE, shapes": shapes, "linear VAE, CIFAR-10": linear}
for name, model in walkers.items():
    starts, ends = (prior_samples(model, 50, seed) for seed in (1, 2))
    with torch.no_grad():
        item, other, middle = (model.decode(way) for way in (starts, ends, (starts + ends) / 2))
    from_fade = (middle - (item + other) / 2).square().sum()
    share = float((from_fade / (item - other).square().sum()).sqrt())
    print(f"{name}: half-way, walk and cross-fade are {share:.0%} as far apart as the two ends")
print("(distance between images: the root of the summed squared error; 50 pairs)")

# %% [markdown]
# Between faces and in CIFAR-10 the walk is nearly a cross-fade: half-way it is no further from one
# than a seventh of the distance between the ends. These decoders are nearly linear, and a linear
# one, which is what PCA has, can do nothing else. On shapes the two differ: a cross-fade's middle
# is two objects at once, where the walk makes a ring of the moon, and a square of the ring. So a
# smooth walk says little about what a model has understood. What the models of photographs add to a
# cross-fade is its two ends.
#
# ## Straight or around?
#
# In $d$ dimensions a draw lies close to the sphere of radius $\sqrt{d}$, and the middle of a
# straight line between two of them close to that of radius $\sqrt{d / 2}$: a region where the prior
# hardly ever draws. A walk along the great circle (spherical interpolation; White 2016) stays out
# where the draws are. *Does one see the difference?*

# %% tags=["report"]
pairs = {}
for pair in range(3):
    for way, spherical in (("straight", False), ("spherical", True)):
        ends = z[2 * pair], z[2 * pair + 1]
        pairs[f"{way} {pair + 1}"] = interpolate(first, *ends, spherical=spherical)
figures.strips(pairs, f"The same ends, two ways, {title}")
plt.show()

# %%
alpha = torch.linspace(0, 1, 50).unsqueeze(1)
figure, axes = figures.panels(1, "Distance from the origin on the way, pair 3", (8, 3.8))
axes[0, 0].plot(alpha, ((1 - alpha) * z[4] + alpha * z[5]).norm(dim=1), label="straight")
axes[0, 0].plot(alpha, slerp(z[4], z[5], alpha).norm(dim=1), label="spherical")
for length, style, label in ((1, "-", "√d, where draws lie"), (0.5, "--", "√(d/2), mid-points")):
    length = (length * first.latent_dim) ** 0.5
    axes[0, 0].axhline(length, color="black", linestyle=style, linewidth=1, label=label)
spread_of_draws = {"alpha": 0.1, "color": "black", "label": "95 % of all draws"}
axes[0, 0].axhspan(*torch.tensor(chi2.interval(0.95, first.latent_dim)).sqrt(), **spread_of_draws)
axes[0, 0].set(xlabel="α", ylabel="length of z")
axes[0, 0].legend(loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()

# %%
starts, ends = prior_samples(first, 100, 1), prior_samples(first, 100, 2)
circle = [
    slerp(item, other, torch.tensor([[0.5]])) for item, other in zip(starts, ends, strict=True)
]
with torch.no_grad():
    middles = {
        "the ends": first.decode(starts),
        "the middle of the straight line": first.decode((starts + ends) / 2),
        "the middle of the great circle": first.decode(torch.cat(circle)),
        "the middle of the cross-fade": (first.decode(starts) + first.decode(ends)) / 2,
    }
for place, decoded in middles.items():
    contrast = decoded.std(dim=(1, 2, 3)).mean()
    print(f"{place}: contrast {contrast:.3f} (standard deviation of the values, 100 pairs)")

# %% [markdown]
# The straight line's middle has about as little contrast as the average of the two end images; the
# great circle keeps the character of its ends. Neither loses the face: nearer to the origin, a
# decoder that is nearly linear gives less of everything.
#
# ## Between two images
#
# The ends are now the posterior means of two images that were encoded. The walk begins and ends at
# their reconstructions, and posterior means lie nearer to the origin than draws do. (As stored, the
# model has imagined these images itself, since CelebA's faces are not ours to publish. It loses
# less of them than of real ones; see 04.)

# %% tags=["report"]
means = posterior_means(first, images[:8])
ends = zip(means[::2], means[1::2], strict=False)
strips = {f"pair {n}": interpolate(first, *pair) for n, pair in enumerate(ends, start=1)}
figures.strips(strips, f"Between two encoded {variant} images, {title}")
plt.show()

# %% [markdown]
# ## How even is the walk?
#
# Take the distance between neighbouring images of a strip, the root of the summed squared
# difference. The largest step over the mean step is 1 for a perfectly even walk, and 9 where
# everything happens in one of nine steps.

# %% tags=["report"]
for name, model in walkers.items():
    starts, ends = (prior_samples(model, 50, seed) for seed in (1, 2))
    straight = format_mean_sd(unevenness(model, starts, ends).tolist(), 2)
    around = format_mean_sd(unevenness(model, starts, ends, spherical=True).tolist(), 2)
    print(f"{name}: largest over mean step {straight} straight, {around} spherical (50 pairs)")

# %% [markdown]
# On faces and in CIFAR-10 no walk jumps, and the great circle is the less even way. (± is the
# standard deviation over the pairs.) On shapes some do: somewhere on the way an object has to stop
# being one kind and become another. Evenness is no merit by itself, for a cross-fade has 1.00, and
# so has the linear VAE.
#
# ## All models, two walks each
#
# *Is each step an image of something?*

# %% tags=["report"]
figures.interpolations(models, "Straight lines between two draws from the prior", 2, seed=3)
plt.show()

# %% [markdown]
# So, is there something sensible between two images? Between two faces there are faces: all have
# their eyes in one place, and an average of two is a third. Between two images of CIFAR-10 there is
# haze, since the ends are haze. A walk is as good as its ends.
#
# ## Break it
#
# *Nothing says that one has to stop at the ends.* Here α runs from −2 to 3: the draws are at 0 and
# at 1, and far out there lies nothing that the decoder was ever asked for.

# %%
alpha = torch.linspace(-2, 3, 11).unsqueeze(1)
beyond = {f"pair {n + 1}": (1 - alpha) * z[2 * n] + alpha * z[2 * n + 1] for n in range(3)}
figures.image_rows(
    {label: first.decode(path).detach() for label, path in beyond.items()},
    f"Beyond the ends, {title}",
    [f"α = {float(a):.1f}" for a in alpha],
)
plt.show()

# %% [markdown]
# The walk overdraws what it was changing, as a caricature does, and farther out the colours go to
# the black and the white, where the sigmoid at the end of the decoder has its limits. Some far ends
# break up, and others are still faces, well beyond where the decoder was trained.
#
# ## Now you
#
# Choose two seeds, and the way between.

# %%
here, end, spherical = 11, 12, True
walks = {}
for name, model in models.items():
    ends = (prior_samples(model, 1, number)[0] for number in (here, end))
    walks[name] = interpolate(model, *ends, spherical=spherical)
way = "around" if spherical else "straight"
figures.strips(walks, f"From the draw of seed {here} to that of seed {end}, {way}")
plt.show()

# %% [markdown]
# The same numbers mean something else to each model: each has laid out its space by itself.
#
# Next: [04, what does the same CVAE make of faces?](04_celeba.ipynb)
