# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What will you find in there?
#
# A latent space has 128 axes, and every notebook before this one has chosen for you which of
# them to look at. Here you choose. As stored, the notebook shows the models that come with the
# repository; run it, and the strips become sliders. `dataset` takes any other images.

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
from IPython.display import Image, display

from vae_core import figures
from vae_core.data import dataset_info, load_dataset
from vae_core.explorer import explore
from vae_core.latent import prior_samples, traverse
from vae_core.runs import published_run, train_or_load
from vae_core.storage import PROJECT

# %%
if dataset == "published":
    data = None
    alone = published_run("conv", params, "celeba-9k", seed)
    pair = [published_run(model, params, "cifar10-jpeg", seed) for model in ("conv", "fc")]
else:
    data = load_dataset(dataset, limit=limit, fraction=dataset_info(dataset).fraction, size=size)
    options = {"seed": seed, "max_epochs": max_epochs, "precision": precision}
    pair = [train_or_load(model, params, data, **options) for model in ("conv", "fc")]
    alone = pair[0]

# %% tags=["report"]
explorer = explore(alone, dataset=data)
explorer.set_ends(A="draw 4", B="draw 7")

# %% [markdown]
# Live, it has sliders. For whoever only reads, here are those of the report's page, which has
# nearly the same controls in another layout:

# %% tags=["report"]
if dataset == "published":
    display(Image(PROJECT / "figures" / "explorer.png", width=720))

# %% [markdown]
# In Jupyter, the large image is decoded as you move. **The sliders** are the eight latent
# dimensions that carry the most nats, the busiest first, and each has a number field for exact
# values and for the arrow keys. **A to B** walks from one end to the other, along the straight line
# or along the sphere on which draws lie. **A and B** are `draw 7`, `image 7`, or the path of an
# image file of your own; below are sixteen draws to pick from.
#
# *Before you move anything: which of the eight will change the light, and which the face?*

# %% tags=["report"]
z = prior_samples(alone.model, 1, seed=4)[0]
busiest = explorer.kl[explorer.name]
rows = {
    f"latent {dimension}, {kl:.1f} nats": traverse(alone.model, z, dimension)
    for dimension, kl in busiest.items()
}
steps = [f"{step:+.1f}" for step in torch.linspace(-3, 3, 10)]
figures.image_rows(
    rows, f"Draw 4, so much added to one latent at a time, {alone.dataset['title']}", steps
)
plt.show()

# %% [markdown]
# All eight change the light: behind her, on all of her, from one side, on the hair. Eyes and mouth
# stay where they are. Nobody told the model what a dimension should mean. The KL says how much it
# *says*, in nats per image, and what is said first is what saves the most squared error: large
# areas, light against dark.
#
# ## Does a dimension do the same everywhere?
#
# *Move the busiest one at five different places: the same change, or another one?*

# %% tags=["report"]
first = next(iter(busiest))
places = {
    f"draw {number}": traverse(alone.model, prior_samples(alone.model, 1, number)[0], first)
    for number in (4, 5, 7, 8, 9)
}
figures.image_rows(places, f"Latent {first} at five places, {alone.dataset['title']}", steps)
plt.show()

# %% [markdown]
# The same change, read in another way at each place: the background grows light, and what that
# does to hair and face depends on whose they are.
#
# ## The same image in both models
#
# Draw 4 in the CVAE's latent space and draw 4 in the FC-VAE's have nothing to do with each other:
# each model has laid out its space by itself. What both know is *images*. So encode the same two
# images with both, and walk from one to the other in each. *Where do the two disagree: at the ends,
# which are what each can say of an image, or on the way?*

# %% tags=["report"]
both = explore(*pair, dataset=data)
both.set_ends(A="image 1", B="image 8")

# %% [markdown]
# At the ends, where the last row has the two images themselves: the FC-VAE keeps less of each. On
# the way, where the last row is their cross-fade, which needs no model (03), both do much the same:
# each fades from what it has at one end to what it has at the other, and half-way, where all is a
# haze, they are nearest. Of a road between two objects there is no trace. (One pair, imagined by
# the CVAE, which has the easier part.) The first row is the model that you move. Choose the other
# one above the image, and its own busiest dimensions are the sliders.
#
# ## Back into Python
#
# What you have found is not lost in the controls: `explorer.z` is the latent, `explorer.image()`
# the image, and `explorer.set_ends(A="me.jpg")` encodes a picture of yours.

# %% tags=["report"]
explorer.alpha = 0.5
print(explorer)
print(
    f"z has {len(explorer.z)} latents and is {explorer.z.norm():.1f} long; "
    f"a draw is about {len(explorer.z) ** 0.5:.1f} long"
)

# %% [markdown]
# Half-way between two draws on a straight line, z is shorter than a draw, by about √2 (03): the two
# are nearly at right angles. Tick "along the sphere", and it is as long as they are.
#
# ## Now you
#
# Choose two ends, a way, and how far to move the busiest dimension.

# %%
here, end, far = "draw 11", "draw 12", 2.5
explorer.set_ends(A=here, B=end)
explorer.spherical = True
half_way = explorer.image()
explorer.offsets[explorer.name][first] = far
moved = torch.stack([half_way, explorer.image()])
figures.image_rows(
    {"the way": explorer.strip(explorer.name), f"half-way, and\n{far:+g} from there": moved},
    f"From {here} to {end} along the sphere, and half-way moved along latent {first}",
)
plt.show()

# %% [markdown]
# The report has the same as a page, `explore.html`, which decodes in the browser and needs neither
# Python nor a network. Back to [00, what is wrong with a plain
# autoencoder?](00_why_variational.ipynb)
