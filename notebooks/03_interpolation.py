# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Walking through the latent space
#
# If the latent space has no holes, then every point between two good points is good too. This
# notebook decodes straight lines between two latents, looks at what happens on the way, and
# measures how even the walk is.
#
# With `published = "cifar10-jpeg"` it takes the trained models that come with the repository and
# needs no data set: the pictures to walk between are then some that the CVAE imagined.

# %% tags=["parameters"]
params = "p1"
dataset = "shapes"
seed = 0
max_epochs = 2
limit = 512
fraction = 1.0
precision = "float32"
steps = 10
published = ""

# %%
import matplotlib.pyplot as plt

from vae_core import figures
from vae_core.data import load_dataset
from vae_core.experiment import published_run, train_or_load
from vae_core.latent import imagine, interpolate, posterior_means, prior_draws, unevenness
from vae_core.results import spread

# %%
if published:
    fc, conv = (published_run(model, params, published).model for model in ("fc", "conv"))
    pictures, title = imagine(conv, 100, seed + 1), f"trained on {published}"
    kind = "imagined"
else:
    data = load_dataset(dataset, limit=limit, fraction=fraction)
    fc = train_or_load("fc", params, data, seed, max_epochs, precision=precision).model
    conv = train_or_load("conv", params, data, seed, max_epochs, precision=precision).model
    pictures, title = data.test, data.title
    kind = "test"

# %% [markdown]
# ## Between two draws from the prior
#
# With two latents $z_1$ and $z_2$ and $\alpha$ from 0 to 1 in equal steps,
#
# $$z(\alpha) = (1 - \alpha)\, z_1 + \alpha\, z_2$$
#
# Each row has its own two ends. Kinds, colours and places should change one into the other, with
# something recognisable at each step, rather than one picture fading while the other appears.

# %% tags=["report"]
z = prior_draws(conv, 8, seed)
strips = {
    f"CVAE {pair + 1}": interpolate(conv, z[2 * pair], z[2 * pair + 1], steps) for pair in range(4)
}
figures.interpolation_rows(strips, f"CVAE, {params}, {title}: between two draws from the prior")
plt.show()

# %% tags=["report"]
strips = {
    f"FC-VAE {pair + 1}": interpolate(fc, z[2 * pair], z[2 * pair + 1], steps) for pair in range(4)
}
figures.interpolation_rows(strips, f"FC-VAE, {params}, {title}: between two draws from the prior")
plt.show()

# %% [markdown]
# A straight line between two draws passes nearer to the origin than either end: in $d$ dimensions
# a draw lies close to the sphere of radius $\sqrt{d}$, and the middle of two independent draws
# close to that of $\sqrt{d / 2}$. The pictures in the middle are therefore a little more average
# than those at the ends.
#
# ## Between two pictures
#
# The ends are now the posterior means of two pictures that the models have not learned. The walk
# starts and ends at their reconstructions.

# %% tags=["report"]
ends = pictures[:8]
means = posterior_means(conv, ends)
strips = {
    f"pictures {pair + 1}": interpolate(conv, means[2 * pair], means[2 * pair + 1], steps)
    for pair in range(4)
}
figures.interpolation_rows(strips, f"CVAE, {params}, {title}: between two encoded {kind} pictures")
plt.show()

# %%
figures.picture_rows(
    {"left": ends[0::2], "right": ends[1::2]}, f"The pictures at the two ends ({title})"
)
plt.show()

# %% [markdown]
# ## How smooth is it?
#
# Take the distance between neighbouring pictures of a strip, in root summed squared difference.
# If the walk is even, all steps are alike; if the picture jumps somewhere, one step is much
# larger than the others. The ratio of the **largest step to the mean step** is 1 for a perfectly
# even walk, and 9 where everything happens in one of nine steps. The deviation is over 50 pairs,
# or as many as there are pictures for.

# %%
half = min(50, len(pictures) // 2)
pairs = {
    "draws from the prior": (prior_draws(conv, 50, 1), prior_draws(conv, 50, 2)),
    f"encoded {kind} pictures": (
        posterior_means(conv, pictures[:half]),
        posterior_means(conv, pictures[half : 2 * half]),
    ),
}
for name, (starts, ends) in pairs.items():
    ratio = spread(unevenness(conv, starts, ends, steps).tolist())
    print(f"CVAE, between {name}: largest over mean step {ratio:.2f}")

# %% [markdown]
# A cross-fade, which mixes the two pictures pixel by pixel, has a ratio of exactly 1 and is as
# smooth as can be, but its middle is two pictures at once. Evenness alone is not the goal; look at
# the strips for what lies between.
