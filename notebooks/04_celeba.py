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
# the images of CIFAR-10 are not: eyes above nose above mouth, always in the middle. As stored, the
# notebook shows the model that comes with the repository, trained on 7,695 of the first 9,000 faces
# of CelebA (the others validate and test), and needs no data set; `dataset` takes any other.

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
import pandas as pd
import torch

from vae_core import figures
from vae_core.data import dataset_info, load_dataset, synthetic
from vae_core.evaluation import evaluate, posterior_statistics
from vae_core.intervals import format_mean_sd
from vae_core.latent import generate, posterior_means, traverse
from vae_core.models import MODELS
from vae_core.runs import published_run, train_or_load
from vae_core.runs.results import read_results
from vae_core.storage import PROJECT
from vae_study.claims import with_original_loss

# %%
if dataset == "published":
    run, solved = (published_run(name, params, "celeba-9k", seed) for name in ("conv", "linear"))
    title, label = run.dataset["title"], "imagined"
    images = generate(run.model, 500, seed + 1)
else:
    data = load_dataset(dataset, limit=limit, fraction=dataset_info(dataset).fraction, size=size)
    options = {"seed": seed, "max_epochs": max_epochs, "precision": precision}
    run, solved = (train_or_load(name, params, data, **options) for name in ("conv", "linear"))
    title, label, images = data.title, "test", data.test
model = run.model

# %% tags=["report"]
faces = generate(model, 24, seed)
figures.image_grid(faces, f"Faces of nobody: CVAE {params}, {title}", 8)
plt.show()

# %% [markdown]
# Every one of these is a draw from N(0, 1), decoded. Pose, hair, skin, smile and light differ; what
# would make a face that of one person in particular is too fine for the nats that it would cost.

# %% tags=["report"]
test = run.summary["test"]
print(
    f"{title}: test loss {test['loss']:.1f} = reconstruction {test['reconstruction']:.1f} "
    f"+ KL {test['kl']:.1f} nats per image, the best of {run.summary['epochs']} epochs"
)

# %% [markdown]
# The study trained on 30 % of CelebA's training part, 48,831 faces, and stopped after about 22
# epochs. That is about twice as
# many steps as ours took, though ours had more epochs: fewer images make shorter epochs, and the
# rule of stopping, which asks for half a nat in five of them, looks at fewer steps.
#
# ## Are faces easier?
#
# They look far better than what the same CVAE imagines from CIFAR-10 (02). *Is its loss as much
# lower?* Mean and standard deviation over the seeds, nats per image:

# %% tags=["report"]
table = read_results(PROJECT / "figures" / "results.csv")
table = with_original_loss(table[table["params"] == "p2"])
rows = {}
for (of, name), group in table[table["model"] != "fc"].groupby(["title", "model"], sort=False):
    parts = {
        part: format_mean_sd(group[f"test_{part}"]) for part in ("loss", "reconstruction", "kl")
    }
    rows[f"{MODELS[name].title}, {of}"] = {"seeds": len(group), **parts}
pd.DataFrame(rows).transpose()

# %% [markdown]
# It is not: the same error for the same nats, within a nat or two. (Nor would a closer look settle
# which is the easier: the model of faces had fewer images to learn from, and the JPEG of these
# CIFAR-10 images takes off about a nat.) What looks better is how alike faces are, to each other
# and to what our eyes are ready to see; the loss is a sum over pixels, and knows nothing of that.
# And a linear VAE, which is PCA with a price (01), reconstructs faces as well as the CVAE does. All
# that the CVAE is ahead by, it saves in the KL term.
#
# *Can one see that?* The same for both: what they make of drawn faces, and what they draw.

# %% tags=["report"]
both = {"CVAE": model, "linear VAE": solved.model}
drawn, _ = synthetic.faces(200, seed=3, size=size)
rows = {"drawn faces": drawn[:10] / 255}
rows |= {f"{name}: reconstructed": item.reconstruct(drawn[:10]) for name, item in both.items()}
rows |= {f"{name}: imagined": generate(item, 10, seed + 2) for name, item in both.items()}
figures.image_rows(rows, f"A CVAE and a linear VAE of {title}")
plt.show()

# %% [markdown]
# Not in what they reconstruct: the matrix even keeps more of the drawn faces' colours, which no
# photograph has. In what they generate, a little: the CVAE's faces have more of an edge, and hair
# and light that go together; the matrix adds up directions that know nothing of each other, and
# some of its faces have a ghost behind them.
#
# ## How did it learn?

# %% tags=["report"]
figures.loss_curves({f"CVAE {params}": run}, f"CVAE on {title}: loss and its two parts")
plt.show()

# %% [markdown]
# First it learns what to say: the KL rises in the first few epochs. Then it learns to say it
# better: the KL creeps, and the error falls to the end. (The first epoch would flatten all others,
# and is left out.)

# %% [markdown]
# ## What is kept of a face?
#
# Encode a face, decode what was said about it. *What is lost?* (As stored, these
# are faces that the model has imagined itself, since CelebA's are not ours to publish, and drawn
# ones, which come with the repository.)

# %% tags=["report"]
figures.reconstructions(
    {"CVAE": model},
    torch.cat([images[:6], drawn[:4]]),
    f"Encoded and decoded: {label} images of {title}, and drawn ones",
)
plt.show()
few = images[:200]
text = (model.reconstruct(few) - model.to_unit_interval(few)).square().sum((1, 2, 3)).mean()
drawn_z, real = evaluate(model, few)["reconstruction"], test["reconstruction"]
print(f"squared error of {label} images, z the posterior mean, as shown: {text:.1f}")
print(f"z a draw from the posterior, as in the loss: {drawn_z:.1f}, of test images {real:.1f}")

# %% [markdown]
# Its own faces lose some colour and contrast, about half of their error being the noise of the
# draw; real ones lose far more, as the error says, but of what kind cannot be shown here. The drawn
# ones show the extreme: what is rare among photographs or absent from them, round eyes of any
# colour and thick round glasses, becomes what is common.
#
# ## What does one latent mean?
#
# Start from one face, move one latent from 3 below to 3 above its value, and leave all others
# alone. Shown are the five that carry the most nats. *Would you know names for them?*

# %% tags=["report"]
means, statistics = posterior_means(model, images), posterior_statistics(model, images)
busiest = statistics["kl"].argsort(descending=True)[:5].tolist()
walks = {f"latent {latent}": traverse(model, means[0], latent) for latent in busiest}
figures.image_rows(
    walks,
    f"So much added to one latent at a time, {title}",
    [f"{s:+.1f}" for s in torch.linspace(-3, 3, 10)],
)
plt.show()

# %% [markdown]
# Nothing asks a latent to mean one thing, and most change several things at once: the background's
# brightness, the light on the face, the hair.
#
# ## How many nats does each carry?

# %%
figures.kl_spectrum(
    {f"CVAE {params}": statistics["kl"]}, f"KL of each latent, {label} images, {title}"
)
plt.show()
busy = statistics["kl"] > 0.1
share = statistics["kl"][busy].sum() / statistics["kl"].sum()
active = int((statistics["variance"] > 0.01).sum())
print(
    f"{int(busy.sum())} of {model.latent_dim} latents carry more than 0.1 nats each, together "
    f"{share:.0%} of the KL; {active} count as active (variance of the posterior means above 0.01)"
)
if dataset == "published":
    real = table[(table["model"] == "conv") & (table["title"] == title)]["active_dimensions"]
    print(f"active on real test images: {format_mean_sd(real, 0)} (all seeds)")

# %% [markdown]
# The line falls off a cliff. What is left of it carries next to nothing, though the usual threshold
# (Burda et al. 2016) still counts a part of that as active, and on real faces most of it: a count
# of active latents depends on the images and on where one draws the line.
#
# ## Break it
#
# *A face upside down, a face with its colours turned round: what does a model say that has only
# ever seen faces the right way up?*

# %% tags=["report"]
strange = torch.cat([images[:5].flip(2), 255 - images[:5]])
names = [*["upside down"] * 5, *["negative"] * 5]
figures.image_rows(
    {"original": strange, "CVAE": model.reconstruct(strange)},
    f"Put through the CVAE of {title}",
    names,
)
plt.show()

# %%
kinds = {
    f"{label} images": few,
    "the same, upside down": few.flip(2),
    "the same, negative": 255 - few,
    "drawn faces": drawn,
}
for name, odd in kinds.items():
    print(f"{name}: {evaluate(model, odd)['loss']:.0f} nats per image, mean over {len(odd)}")
print(f"real test images of {title}: {test['loss']:.0f} nats")

# %% [markdown]
# Of a face upside down it makes one that stands upright, and has lost its hair. Of a negative it
# keeps what is dark and what is light, and hardly a feature. What it cannot say, it does not say.
# (The first
# three lines are the same images, and can be compared; the drawn faces are other images, and real
# ones cost more for what is fine in them.)
#
# ## Now you
#
# Choose a face and a latent of your own; `reach` says how far.

# %%
face, latent, reach = 5, busiest[0], 5.0
figures.image_rows(
    {f"latent {latent}": traverse(model, means[face % len(means)], latent, reach)},
    f"So much added to one latent of face {face}, {title}",
    [f"{s:+.1f}" for s in torch.linspace(-reach, reach, 10)],
)
plt.show()

# %% [markdown]
# What lies between two faces is in [03](03_interpolation.ipynb).
#
# Next: [05, what happens when one term of the loss outweighs the
# other?](05_posterior_collapse.ipynb)
