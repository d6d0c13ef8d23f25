# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What does the same CVAE make of faces?
#
# The convolutional VAE again, unchanged, on another kind of image. Faces are alike in a way that
# the images of CIFAR-10 are not: eyes above nose above mouth, always in the middle. A model can
# spend its nats on what differs. As stored, the notebook shows the model that comes with the
# repository, trained on 7,695 faces of CelebA, and needs no data set; `dataset` takes any other.

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
from vae_core.data import facts, load_dataset, synthetic
from vae_core.evaluation import evaluate, posterior_statistics
from vae_core.experiment import published_run, train_or_load
from vae_core.latent import imagine, interpolate, posterior_means, traverse
from vae_core.storage import PROJECT
from vae_core.tables import read_results, spread

# %%
if dataset == "published":
    run = published_run("conv", params, "celeba-9k", seed)
    title, kind = run.dataset["title"], "imagined"
    images = imagine(run.model, 500, seed + 1)
else:
    data = load_dataset(dataset, limit=limit, fraction=facts(dataset).fraction, size=size)
    options = {"seed": seed, "max_epochs": max_epochs, "precision": precision}
    run = train_or_load("conv", params, data, **options)
    title, kind, images = data.title, "test", data.test
model = run.model

# %% tags=["report"]
faces = imagine(model, 36, seed)
figures.image_grid(faces, f"Faces of nobody: CVAE {params}, {title}", 12)
plt.show()

# %% [markdown]
# Every one of these is a draw from N(0, 1), decoded. Pose, hair, skin, smile and light differ; what
# would make a face that of one person in particular is too fine for the nats that it would cost.

# %% tags=["report"]
test = run.summary["test"]
print(
    f"{title}: test loss {test['loss']:.1f} = reconstruction {test['reconstruction']:.1f} "
    f"+ KL {test['kl']:.1f} nats per image, after {run.summary['epochs']} epochs"
)

# %% [markdown]
# The study trained on 30 % of CelebA, 48,831 faces, and stopped after about 22 epochs; fewer images
# make shorter epochs, so more of them are needed. How much does the seed matter?

# %%
table = read_results(PROJECT / "figures" / "results.csv")
table = table[table["title"].str.startswith("CelebA")]
runs, linear = (table[table["model"] == model] for model in ("conv", "linear"))
print(
    f"our runs, {len(runs)} seeds: test loss {spread(runs['test_loss'])}, "
    f"{spread(runs['epochs'])} epochs\n"
    f"a linear VAE, solved instead of trained: test loss {spread(linear['test_loss'])}"
)

# %% [markdown]
# ## How did it learn?

# %% tags=["report"]
figures.loss_curves({f"CVAE {params}": run}, f"CVAE on {title}: loss and its two parts")
plt.show()

# %% [markdown]
# ## What is kept of a face?
#
# Encode a face, decode what was said about it. *What is lost first?* (Where the data set's faces
# may not be shown, these are faces that the model has imagined itself. It loses far less of them
# than of a real one; the numbers below the figure say how much.)

# %% tags=["report"]
figures.reconstructions(
    {"CVAE": model}, images[:10], f"Encoded and decoded: {kind} images, {title}"
)
plt.show()
error = evaluate(model, images[:200])["reconstruction"]
print(
    f"squared error of these {kind} images {error:.1f}, of test images {test['reconstruction']:.1f}"
)

# %% [markdown]
# What goes is what is sharp: the gleam in an eye, the edge of the hair.
#
# ## From one face to another
#
# Straight lines between posterior means. *Is each step a face?*

# %% tags=["report"]
means = posterior_means(model, images)
ends = zip(means[:8:2], means[1:8:2], strict=False)
strips = {f"pair {n}": interpolate(model, *pair) for n, pair in enumerate(ends, start=1)}
figures.strips(strips, f"Between two encoded {kind} images, {title}")
plt.show()

# %% [markdown]
# It is: heads turn and hair grows by degrees, and nobody has three eyes on the way.
#
# ## What does one latent mean?
#
# Start from one face, move one latent from 3 below to 3 above its value, and leave all others
# alone. Shown are the five that carry the most nats. *Would you know names for them?*

# %% tags=["report"]
statistics = posterior_statistics(model, images)
busiest = statistics["kl"].argsort(descending=True)[:5].tolist()
walks = {f"latent {latent}": traverse(model, means[0], latent) for latent in busiest}
figures.image_rows(
    walks, f"One latent at a time, {title}", [f"{s:+.1f}" for s in torch.linspace(-3, 3, 10)]
)
plt.show()

# %% [markdown]
# Nothing asks a latent to mean one thing, and most change several things at once: the background's
# brightness, the light on the face, the hair, the pose.
#
# ## How many nats does each carry?

# %%
figures.kl_spectrum(
    {f"CVAE {params}": statistics["kl"]}, f"KL of each latent, {kind} images, {title}"
)
plt.show()
busy = statistics["kl"] > 0.1
share = statistics["kl"][busy].sum() / statistics["kl"].sum()
active = int((statistics["variance"] > 0.01).sum())
print(
    f"{int(busy.sum())} of {model.latent_dim} latents carry more than 0.1 nats each, together "
    f"{share:.0%} of the KL; {active} count as active (variance of the posterior means above 0.01)"
)

# %% [markdown]
# The line falls off a cliff. What is left of it carries next to nothing, though the usual threshold
# (Burda et al. 2016) still counts a part of that as active, and on real faces most of it: a count
# of active latents depends on the images and on where one draws the line.
#
# ## Break it
#
# *A drawn face, a face upside down, a face with its colours turned round: what does a model say
# that has only ever seen faces the right way up?*

# %% tags=["report"]
drawn, _ = synthetic.faces(4, seed=3, size=size)
strange = torch.cat([drawn, images[:3].flip(2), 255 - images[:3]])
names = [*["drawn"] * 4, *["upside down"] * 3, *["negative"] * 3]
figures.image_rows(
    {"original": strange, "CVAE": model.reconstruct(strange)},
    f"Put through the CVAE of {title}",
    names,
)
plt.show()

# %%
kinds = {
    f"{kind} images": images[:200],
    "the same, upside down": images[:200].flip(2),
    "drawn faces": synthetic.faces(200, seed=3, size=size)[0],
}
for name, odd in kinds.items():
    print(f"{name}: {evaluate(model, odd)['loss']:.0f} nats per image, mean over {len(odd)}")
print(f"real test images of {title}: {test['loss']:.0f} nats")

# %% [markdown]
# It looks for a face, and finds what it can: light and dark where they are, in the shapes that it
# knows. What it cannot say, it does not say. (Its own images are the easiest of all, so compare
# the first three numbers with each other: upside down, they cost more, and still less than a real
# face does.)
#
# ## Now you
#
# Choose a face and a latent of your own; `reach` says how far.

# %%
face, latent, reach = 5, busiest[0], 5.0
figures.image_grid(
    traverse(model, means[face % len(means)], latent, reach), f"Face {face}, latent {latent}", 10
)
plt.show()

# %% [markdown]
# Next: [05, what happens when one term of the loss outweighs the
# other?](05_posterior_collapse.ipynb)
