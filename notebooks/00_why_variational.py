# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What is wrong with a plain autoencoder?
#
# An autoencoder squeezes an image into a code, a few numbers, and learns to unfold the code again.
# That should be all one needs to *invent* images: choose numbers, unfold them. It is not. Here are
# ten draws from a normal distribution, unfolded by two models with the same layers and 128 numbers
# a code (its *latents*): a plain autoencoder, which has learned to reconstruct and nothing else,
# and a variational one, a VAE.

# %% tags=["parameters"]
params = "plane"
dataset = "shapes"
seed = 0
max_epochs = 100
limit = None
size = 32
precision = "auto"

# %%
import inspect

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.spatial import KDTree

from vae_core import figures
from vae_core.data import dataset_info, load_dataset
from vae_core.data.synthetic import HUES, shapes
from vae_core.evaluation import evaluate
from vae_core.latent import interpolate, posterior_means, posterior_samples, prior_samples
from vae_core.models import VAE, Autoencoder
from vae_core.runs import train_or_load

# %%
data = load_dataset(dataset, limit=limit, fraction=dataset_info(dataset).fraction, size=size)
options = {"seed": seed, "max_epochs": max_epochs, "precision": precision}
large = {
    "autoencoder": train_or_load("ae", "p2", data, beta=0.0, **options).model,
    "VAE": train_or_load("conv", "p2", data, **options).model,
}

# %% tags=["report"]
figures.samples(large, f"Ten draws from N(0, 1), decoded: 128 latents, {data.title}", seed=3)
plt.show()

# %% [markdown]
# Both have seen the same images, and the autoencoder reconstructs them better. Why does it fail
# here, where the other does not?
#
# 128 numbers cannot be drawn on paper. Two can. From here on, a code is two numbers (the parameter
# set `plane`), and all else is as before.

# %%
runs = {
    "autoencoder": train_or_load("ae", params, data, beta=0.0, **options),
    "VAE": train_or_load("conv", params, data, **options),
}
models = {name: run.model for name, run in runs.items()}
codes = {name: posterior_means(model, data.test) for name, model in models.items()}

# %% [markdown]
# ## Where do the codes lie?
#
# *Before you look: does anything tell an autoencoder where to put its codes?* Below is the code of
# every test image, a dot each, in the colour of the object that it shows. (A VAE answers with a
# normal distribution of codes, the *posterior*; its mean is shown.) The circles say where draws
# from N(0, 1) fall: half of them inside the inner one, 99 % inside the outer.

# %%
# The built-in shapes come with the factors that made them; other images show their mean colour.
colours = data.test.float().mean((2, 3)) / 255
if dataset == "shapes":
    same, factors = shapes(len(data.test), seed=2, size=size)
    assert torch.equal(same, data.test)
    place = factors["hue"] * (len(HUES) - 1)
    colours = np.stack([np.interp(place, range(len(HUES)), part) for part in HUES.T], axis=1)

INNER, OUTER = 1.18, 3.03  # hold 50 and 99 % of the draws from N(0, 1)


def add_circles(axis):
    """Draw both circles."""
    for radius in (INNER, OUTER):
        axis.add_patch(plt.Circle((0, 0), radius, fill=False, color="black"))


# %% tags=["report"]
figure, axes = figures.panels(
    2, f"Codes of test images, and circles that hold 50 and 99 % of draws, {data.title}", (12, 6)
)
for axis, (name, points) in zip(axes[0], codes.items(), strict=True):
    axis.scatter(*points.T, c=colours, s=9)
    add_circles(axis)
    axis.set(title=name, xlabel="first latent", ylabel="second latent", aspect="equal")
    axis.set_adjustable("datalim")
plt.show()

# %% [markdown]
# Nothing does. The autoencoder has laid most images around the origin, more or less by chance, and
# the magenta ones, whatever their shape, along an arm that leaves both circles; few draws reach
# more than its root. The VAE's codes lie nearly as draws from N(0, 1) lie: most of the circle is
# settled, thinly at its lower right, and little is outside.
#
# ## What do draws show of it?
#
# *Compare what each model can show, its reconstructions of test images, with what its draws show.*

# %% tags=["report"]
rows = {"test images": data.test[:12]}
for name, model in models.items():
    rows[f"{name}, test images"] = model.reconstruct(data.test[:12])
    rows[f"{name}, draws"] = model.decode(prior_samples(model, 12, seed=3)).detach()
figures.image_rows(
    rows, f"What two latents can show, and what draws from N(0, 1) show, {data.title}"
)
plt.show()

# %% [markdown]
# The autoencoder's draws look well, better than the VAE's: wherever they fall, codes are not far,
# and it knows more. But look for magenta. It knows how to paint that, and no draw asks it to. The
# VAE cannot paint it at all, for whatever it says of an image has a price (below); but what it can
# paint, its draws show.
#
# ## The whole plane, decoded
#
# Every tile is the decoded image of its place. Both planes show the circles of the figure
# above; the autoencoder's reaches at least as far as the middle 95 % of its codes.


# %%
def plane(model, left, right, tiles=16):
    """Decode a grid of places, `tiles` along the longer side; return one image and its extent."""
    step = float((right - left).max()) / tiles
    ends = zip(left, right, strict=True)
    xs, ys = (torch.arange(float(a), float(b) + step / 2, step) for a, b in ends)
    z = torch.stack(torch.meshgrid(xs, ys.flip(0), indexing="xy"), dim=-1)
    images = model.decode(z.view(-1, 2)).detach().view(len(ys), len(xs), 3, size, size)
    image = images.permute(0, 3, 1, 4, 2).reshape(len(ys) * size, len(xs) * size, 3)
    edges = (xs[0], xs[-1] + step, ys[0], ys[-1] + step)
    return image, [float(edge) - step / 2 for edge in edges]


# %% tags=["report"]
figure, axes = figures.panels(
    2, f"The decoded plane, and circles that hold 50 and 99 % of draws, {data.title}", (12, 6)
)
for axis, (name, model) in zip(axes[0], models.items(), strict=True):
    low, high = codes[name].quantile(torch.tensor([0.025, 0.975]), dim=0)
    image, extent = plane(model, low.clamp(max=-3.2), high.clamp(min=3.2))
    axis.imshow(image, extent=extent)
    add_circles(axis)
    axis.set(title=name, xlabel="first latent", ylabel="second latent")
    axis.set(xlim=extent[:2], ylim=extent[2:])
    axis.grid(visible=False)
plt.show()

# %% [markdown]
# Nearly all of the autoencoder's magenta lies outside: a draw would have to fall there. And in two
# dimensions even the empty land decodes to something, for no place is far from a settled one, and
# the decoder has little choice but to go on as it does there.
#
# ## What lies between two codes?
#
# *Take two test images, encode both, and walk from one code to the other: ten images, nine equal
# steps. What should one see on the way?*

# %% tags=["report"]
ends = {name: posterior_means(model, data.test[4:6]) for name, model in models.items()}
walks = {name: interpolate(models[name], *pair) for name, pair in ends.items()}
alpha = torch.linspace(0, 1, 10).view(-1, 1, 1, 1)
walks["no model:\na cross-fade"] = torch.lerp(*data.test[4:6, None] / 255, alpha)
figures.strips(walks, f"Between two encoded test images of {data.title}")
plt.show()

# %% [markdown]
# (The lowest row has the two images at its ends.) Both walk well: an object changes its kind by
# degrees, and in the autoencoder its colour too (to this VAE both are blue). Between two codes lie
# other codes.
#
# ## One number
#
# Could one take a draw from N(0, 1) for the code of an image? Mix as many draws as there are
# codes, and ask of every point: *is its nearest neighbour of its own kind?* If draws and codes are
# distributed alike, that is as likely as not, and the share is 0.5. If they keep apart, because
# draws fall into holes that the codes leave, or codes lie where no draw falls, it rises to 1.
#
# This is the nearest-neighbour two-sample test (Schilling 1986, Henze 1988). It needs no bins, no
# scale and no training, and its value for "no difference" is known; with 2,000 of each, chance
# moves it by about 0.01. A VAE's code is a draw from its posterior here, as it is in training.


# %%
def own_kind(points, others):
    """Return the share, of points and as many others, whose nearest neighbour is of their kind."""
    n = min(len(points), len(others))
    both = torch.cat([points[:n], others[:n]]).numpy()
    _, neighbours = KDTree(both).query(both, k=2)
    return ((neighbours[:, 1] < n) == (neighbours[:, 0] < n)).mean()


# %% tags=["report"]
points = {name: posterior_samples(model, data.test) for name, model in models.items()}
draws = prior_samples(models["VAE"], len(data.test), seed=1)
for name, place in points.items():
    share = own_kind(place, draws)
    print(f"{name}: {share:.2f} of codes and draws have a nearest neighbour of their own kind")
    inside, drawn = (points[points.norm(dim=1) < OUTER] for points in (place, draws))
    print(f"  inside the outer circle only: {own_kind(inside, drawn):.2f}")
    print(f"  outside lie {1 - len(inside) / len(place):.0%} of the codes and 1% of the draws")
moved = prior_samples(models["VAE"], len(data.test), seed=2) + torch.tensor([1.0, 0.0])
print(f"for scale, draws and others that are moved by one: {own_kind(moved, draws):.2f}")

# %% [markdown]
# Inside the circle the autoencoder's codes differ from draws about as much as draws that are moved
# by one do, the VAE's about half as much. What is wrong above all is what the picture shows: a
# third of the autoencoder's codes lies where draws hardly ever come.
#
# One may object that N(0, 1) was never promised by the autoencoder. So let it choose: fit a normal
# distribution to its codes, and draw from that one instead.

# %%
group = torch.distributions.MultivariateNormal(
    points["autoencoder"].mean(0), torch.cov(points["autoencoder"].T)
)
torch.manual_seed(1)
share = own_kind(points["autoencoder"], group.sample((len(data.test),)))
print(f"autoencoder, with a normal distribution of its own: {share:.2f}")

# %% [markdown]
# That does not help: a normal distribution wide enough to reach the arm also covers the empty
# land beside it. Whoever wants to draw from these codes has to learn their shape first. The
# VAE's are not quite N(0, 1) either, but near.
#
# *And the autoencoder of the first figure, with its 128 latents?* Give it the same chance:

# %% tags=["report"]
plain = large["autoencoder"]
mu = posterior_means(plain, data.test)
# Weighted sums of the codes: draws from the normal distribution of their mean and covariance
group = mu.mean(0) + torch.randn(10, len(mu)) @ (mu - mu.mean(0)) / (len(mu) - 1) ** 0.5
rows = {
    "N(0, 1)": prior_samples(plain, 10, seed=3),
    "a normal distribution\nof its own": group,
}
figures.image_rows(
    {label: plain.decode(z).detach() for label, z in rows.items()},
    f"Ten draws each, decoded by the autoencoder with 128 latents, {data.title}",
)
plt.show()
off, spread = mu.mean(0).square().mean().sqrt(), mu.std(0)
print(
    f"along a latent its codes lie {off:.1f} from the origin (root mean square), with a standard "
    f"deviation of {spread.min():.1f} to {spread.max():.1f}; those of N(0, 1) are 0 and 1"
)

# %% [markdown]
# Here it does help. Most of what the first figure shows is a wrong address: this model keeps its
# codes elsewhere, on a scale of their own. What is still wrong with the lower row, the horns and
# the bays, is what a normal distribution cannot know: it knows the correlations of the latents, but
# not that an object is a heart or a ring and never something between. In 128 dimensions there
# is room for holes; [09](09_holes_and_meaning.ipynb) measures them. A VAE needs no second look at
# its codes, since it was told beforehand where they would be looked for, though some of its draws
# have no name either.
#
# ## What is different inside?
#
# The layers are the same. Where the autoencoder hands its code on, the VAE adds noise to it:

# %%
print(inspect.getsource(Autoencoder.reparameterize))
print(inspect.getsource(VAE.reparameterize))

# %% [markdown]
# and while the autoencoder pays for its squared error alone, the VAE pays for the length of its
# message too, the KL divergence of its posterior from N(0, 1). It is counted in *nats*, as all
# losses here are; a nat is 1.44 bits:
#
# $$L(x) = \sum_i (x_i - \hat{x}_i)^2
# + \mathrm{KL}\left(q(z \mid x) \,\|\, \mathcal{N}(0, 1)\right)$$
#
# Noise makes a code a neighbourhood, so that neighbours have to look alike. The KL term pulls all
# neighbourhoods to the same place, so that little land is left between them. What does that cost?

# %%
for name, model in [*models.items(), *large.items()]:
    drawn, of_mean = evaluate(model, data.test)["reconstruction"], model.reconstruct(data.test)
    error = (of_mean - data.test / 255).square().sum((1, 2, 3)).mean()
    parts = f"squared error {drawn:.1f} per test image, {error:.1f} from the mean of the posterior"
    print(f"{name}, {model.latent_dim} latents: {parts}")

# %% [markdown]
# With two latents the two err alike, as far as one seed can show: both are short of room (and the
# autoencoder's loss still jumped from epoch to epoch when its training ended). With 128 the price
# is plain: decoded from the mean of its posterior the VAE errs twice as much, and with the noise
# that it was trained with four times.
#
# So, what is wrong with a plain autoencoder? Not how it reconstructs, but that nothing says where
# its codes are: whoever draws from a place that was agreed beforehand is guessing. Noise and KL
# term buy the agreement. The price is what a code can no longer say.
#
# ## Now you
#
# Choose places on the plane, and see what each of the two makes of them. Where is the tip of the
# autoencoder's arm, and what lies beside it? How far out can you go until an image falls apart?

# %%
places = [(0.0, 0.0), (0.5, 0.5), (1.0, 1.0), (2.0, 2.0), (4.0, 4.0), (8.0, 8.0)]
figures.image_rows(
    {name: model.decode(torch.tensor(places)).detach() for name, model in models.items()},
    "Places on the plane, decoded",
    [f"({x:g}, {y:g})" for x, y in places],
)
plt.show()

# %% [markdown]
# Two latents are for looking at. From here on there are 128 or 256 of them, and the question is
# which layers to put around them: [01, fully connected against convolutional](01_fc_vs_cvae.ipynb).
