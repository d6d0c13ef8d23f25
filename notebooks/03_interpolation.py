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
# If the latent space has no holes, every point between two good points is good too. Take two
# draws from the prior, walk from one to the other in ten equal steps, and decode each. As stored,
# the notebook walks through the models that come with the repository, trained on faces and on
# CIFAR-10 (JPEG), and needs no data set; `dataset` takes any other.

# %% tags=["parameters"]
params = "p2"
dataset = "published"
seed = 0
max_epochs = 100
limit = None
size = 32
precision = "auto"

# %%
import matplotlib.pyplot as plt
import torch

from vae_core import figures
from vae_core.data import facts, load_dataset
from vae_core.evaluation import unevenness
from vae_core.experiment import published_run, train_or_load
from vae_core.latent import imagine, interpolate, posterior_means, prior_draws, slerp
from vae_core.tables import spread

# %%
if dataset == "published":
    runs = {
        "CVAE, faces": published_run("conv", params, "celeba-9k", seed),
        "CVAE, CIFAR-10": published_run("conv", params, "cifar10-jpeg", seed),
        "FC-VAE, CIFAR-10": published_run("fc", params, "cifar10-jpeg", seed),
    }
    first, title = runs["CVAE, faces"].model, "CelebA (first 9,000)"
    images, kind = imagine(first, 100, seed + 2), "imagined"
else:
    data = load_dataset(dataset, limit=limit, fraction=facts(dataset).fraction, size=size)
    options = {"seed": seed, "max_epochs": max_epochs, "precision": precision}
    runs = {
        "CVAE": train_or_load("conv", params, data, **options),
        "FC-VAE": train_or_load("fc", params, data, **options),
    }
    first, title = runs["CVAE"].model, data.title
    images, kind = data.test, "test"
models = {name: run.model for name, run in runs.items()}

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
# and every step of it is an image: features change one into the other, rather than one image
# fading while the other appears.
#
# ## Is that not just a cross-fade?
#
# *Mix the two end images pixel by pixel instead. What is in the middle?*

# %% tags=["report"]
z = prior_draws(first, 10, seed)
walk = interpolate(first, z[6], z[7])
alpha = torch.linspace(0, 1, 10).view(-1, 1, 1, 1)
fade = (1 - alpha) * walk[0] + alpha * walk[-1]
figures.strips(
    {"latent": walk, "pixels": fade}, f"A walk and a cross-fade with the same ends, {title}"
)
plt.show()

# %% [markdown]
# The cross-fade's middle is two images at once: look for outlines that show through each other,
# where the two ends differ in shape. The middle of the walk is one image. On faces, whose eyes all
# lie in one place, one has to look closely; between two shapes (05) nobody can miss it.
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
figure, axes = figures.panels(1, "Distance from the origin on the way", (8, 3.8))
axes[0, 0].plot(alpha, ((1 - alpha) * z[6] + alpha * z[7]).norm(dim=1), label="straight")
axes[0, 0].plot(alpha, slerp(z[6], z[7], alpha).norm(dim=1), label="spherical")
axes[0, 0].axhline(first.latent_dim**0.5, color="black", linewidth=1, label="√d, where draws lie")
axes[0, 0].set(xlabel="α", ylabel="length of z")
axes[0, 0].legend()
plt.show()

# %%
starts, ends = prior_draws(first, 100, 1), prior_draws(first, 100, 2)
halfway = torch.tensor([[0.5]])
middles = {
    "the ends": starts,
    "the middle of the straight line": (starts + ends) / 2,
    "the middle of the great circle": torch.cat([*map(slerp, starts, ends, [halfway] * 100)]),
}
for place, latents in middles.items():
    contrast = first.decode(latents).detach().std(dim=(1, 2, 3)).mean()
    print(f"{place}: contrast {contrast:.3f} (standard deviation of the values, 100 pairs)")

# %% [markdown]
# The straight line's middle is a little plainer, nearer to the average image, with less contrast;
# the great circle keeps the character of its ends. Neither falls into a hole: between the sphere
# and the origin the decoder has simply learned to say less.
#
# ## Between two images
#
# The ends are now the posterior means of two images that were encoded. The walk begins and ends at
# their reconstructions, and posterior means lie nearer to the origin than draws do.

# %% tags=["report"]
means = posterior_means(first, images[:8])
ends = zip(means[::2], means[1::2], strict=False)
strips = {f"pair {n}": interpolate(first, *pair) for n, pair in enumerate(ends, start=1)}
figures.strips(strips, f"Between two encoded {kind} images, {title}")
plt.show()

# %% [markdown]
# ## How even is the walk?
#
# Take the distance between neighbouring images of a strip, the root of the summed squared
# difference. The largest step over the mean step is 1 for a perfectly even walk, and 9 where
# everything happens in one of nine steps.

# %% tags=["report"]
for name, model in models.items():
    starts, ends = prior_draws(model, 50, 1), prior_draws(model, 50, 2)
    straight, around = (
        spread(unevenness(model, starts, ends, spherical=way).tolist(), 2) for way in (False, True)
    )
    print(f"{name}: largest over mean step {straight} straight, {around} spherical (50 pairs)")

# %% [markdown]
# No model jumps, and the great circle is the less even way. (± is the standard deviation over the
# pairs.) But evenness is not sense: the cross-fade has 1.00.
#
# ## All models, two walks each
#
# *Is each step an image of something?*

# %% tags=["report"]
figures.interpolations(models, "Straight lines between two draws from the prior", 2, seed=3)
plt.show()

# %% [markdown]
# A walk is as good as its ends. Faces stay faces on the way; what the models of CIFAR-10 imagine
# has no name at the ends, and none between.
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
# the black and the white. Yet most of the far ends are still faces: the decoder goes on in the
# direction that it knows, well beyond where it was trained.
#
# ## Now you
#
# Choose two seeds, and the way between.

# %%
here, there, spherical = 11, 12, True
walks = {}
for name, model in models.items():
    ends = (prior_draws(model, 1, number)[0] for number in (here, there))
    walks[name] = interpolate(model, *ends, spherical=spherical)
figures.strips(walks, f"From draw {here} to draw {there}")
plt.show()

# %% [markdown]
# The same draw means something else to each model: their latent spaces have nothing in common but
# their shape.
#
# Next: [04, what does the same CVAE make of faces?](04_celeba.ipynb)
