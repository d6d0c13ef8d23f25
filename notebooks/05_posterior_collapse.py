# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What happens when one term of the loss outweighs the other?
#
# The loss of a VAE adds two numbers that know nothing of each other: a squared error and a
# divergence. Their balance decides what comes out. Here is the same CVAE, trained three times from
# the same weights until the same rule of early stopping ends it, with nothing changed but that
# balance:
#
# - **(a) mean + KL**: the squared error *averaged* over the values of an image, beside the KL
#   divergence summed over the latents: what one gets from a framework's mean squared error.
# - **(b) sum + 0.0001 KL**: the squared error summed, the KL term next to nothing.
# - **(c) sum + KL**: the study's loss, the ELBO of a decoder whose pixels have variance ½.
#
# (All three are ELBOs up to a factor, of decoders that expect very different errors; 08 asks which
# is right.)

# %% tags=["parameters"]
params = "p2"
dataset = "shapes"
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
from vae_core.data import dataset_info, load_dataset
from vae_core.evaluation import active_dimensions, evaluate, posterior_statistics, unevenness
from vae_core.intervals import format_mean_sd
from vae_core.latent import interpolate, posterior_means
from vae_core.loss import elbo
from vae_core.runs import train_or_load
from vae_core.runs.results import read_results
from vae_core.storage import PROJECT

# %%
data = load_dataset(dataset, limit=limit, fraction=dataset_info(dataset).fraction, size=size)
options = {"seed": seed, "max_epochs": max_epochs, "precision": precision}
runs = {
    "(a) mean + KL": train_or_load("conv", params, data, reduction="mean", **options),
    "(b) sum + 0.0001 KL": train_or_load("conv", params, data, beta=1e-4, **options),
    "(c) sum + KL": train_or_load("conv", params, data, **options),
}
models = {label: run.model for label, run in runs.items()}

# %% tags=["report"]
trained_on = f"CVAE {params}, {data.title}"
mean_image = data.train.float().mean(0) / 255
rows = {label: model.reconstruct(data.test[:9]) for label, model in models.items()}
rows = {"test image": data.test[:9], **rows, "mean image": mean_image.expand(9, -1, -1, -1)}
figures.image_rows(rows, f"Test images, reconstructions, and the mean image: {trained_on}")
plt.show()

# %% tags=["report"]
figures.samples(models, f"Decoded draws from the prior: {trained_on}", n=9, seed=2)
plt.show()

# %% [markdown]
# (a) has forgotten what it saw: whatever it is shown, it answers with one image. Its draws are
# close to the mean image; the reconstructions, decoded from the mean of the posterior, are not even
# that, because this mean is the origin, and in 128 dimensions no draw of the training was ever near
# it (03). (b) remembers everything, and N(0, 1) finds nothing in it. (c) does both, less exactly.
#
# ## Which term has won?
#
# A latent is **active** if the posterior means of different images differ in it: if their variance
# over the test images is above 0.01 (Burda et al. 2016). A latent that is not active says nothing
# about the image; its posterior is nearly the prior, and its KL nearly nothing. (One that is may
# still say very little, so those of more than 0.1 nats are counted too.) The table measures all
# three alike: the squared error *summed*, the KL with its full weight, in nats per image.

# %% tags=["report"]
measured = {}
for label, model in models.items():
    losses, few = evaluate(model, data.test), data.test[:500]
    decoded = model.reconstruct(few).detach()
    from_mean = (decoded - model.to_unit_interval(few)).square().sum((1, 2, 3)).mean()
    kl = posterior_statistics(model, data.test)["kl"]
    measured[label] = {
        "squared error": f"{losses['reconstruction']:.1f}",
        "from the mean": f"{from_mean:.1f}",
        "KL": f"{losses['kl']:.1f}",
        "active latents": f"{active_dimensions(model, data.test)} of {model.latent_dim}",
        "of more than 0.1 nats": int((kl > 0.1).sum()),
        "epochs": runs[label].summary["epochs"],
    }
pd.DataFrame(measured).transpose()

# %% [markdown]
# *Where does (a) stand beside a "model" that never looks at the image?* The mean image of the
# training part, as the answer to every test image:

# %%
error, values = (data.test / 255 - mean_image).square().sum((1, 2, 3)).mean(), 3 * size * size
print(f"squared error of the mean image: {error:.1f} per test image")
print(f"averaged over {values:,} values: {error / values:.3f}")

# %% [markdown]
# Behind it: all its weights do not beat one image. And there is a reason why training should not
# help. Averaged, even a perfect reconstruction saves no more than the second number, a few
# hundredths, so latents that together spend more nats than that make the loss worse. Cheaper ones
# do not pay either: a linear model, which can be solved, describes a direction only if its variance
# exceeds half the price of a nat (08), here half of 3,072 in summed squared error, and all
# directions together have the first number. (The error with z drawn from the posterior is that of
# the loss; that "from the mean", decoded from its mean over 500 images, is that of the figure.)
#
# ## How many nats does each latent carry?

# %% tags=["report"]
spectra = {label: posterior_statistics(model, data.test)["kl"] for label, model in models.items()}
figures.kl_spectrum(spectra, f"KL of each latent: {trained_on}")
plt.show()

# %% [markdown]
# - In **(a)** the KL term wins. No latent is worth its price, and the posterior **collapses** onto
#   the prior: $q(z \mid x) = p(z)$ for every $x$. (Its training ends after six epochs, because its
#   whole loss is below the 0.5 that early stopping counts as progress. With more patience nothing
#   should change, for the price of a nat stays the same; `patience=0` in its call shows.)
# - In **(b)** the reconstruction wins. Information is almost free, every latent is used, and the
#   posteriors become narrow, nearly points: nearly a plain autoencoder.
# - In **(c)** the latents that are worth their nats are used, and the others rest on the prior.
#
# ## Is (a) another loss, or another price?
#
# *The mean is the sum over 3,072 values. What weight on the KL term, usually called β, would one
# have to set beside the mean to have (c) back?* Divide the whole loss of (c) by the number of
# values:

# %%
with torch.no_grad():
    images = models["(c) sum + KL"].to_unit_interval(data.test[:100])
    decoded, mu, logvar = models["(c) sum + KL"](images, torch.Generator().manual_seed(seed))
    summed = elbo(decoded, images, mu, logvar).total
    averaged = elbo(decoded, images, mu, logvar, beta=1 / values, reduction="mean").total
torch.testing.assert_close(averaged * values, summed)
print(f"mean + KL / {values} is sum + KL, divided by {values}: so (a) has a β of {values}")

# %% [markdown]
# The two are the same loss; the mean beside an unweighted KL is a β of thousands. It is also why
# code that averages needs a small weight on the KL term: the one that gives (c) back is one over
# the number of values.
#
# ## Walk through all three
#
# *The same two test images for each (those at the ends of the lowest row). What do you expect
# between them?*

# %% tags=["report"]
ends = {label: posterior_means(model, data.test[4:6]) for label, model in models.items()}
walks = {label: interpolate(models[label], *pair) for label, pair in ends.items()}
alpha = torch.linspace(0, 1, 10).view(-1, 1, 1, 1)
walks["no model:\na cross-fade"] = torch.lerp(*data.test[4:6, None] / 255, alpha)
figures.strips(walks, f"Between two encoded test images: {trained_on}")
plt.show()
for label, model in list(models.items())[1:]:
    means = posterior_means(model, data.test[:100])
    starts, arrivals = means[::2], means[1::2]
    steps = format_mean_sd(unevenness(model, starts[: len(arrivals)], arrivals).tolist(), 2)
    print(f"{label}: largest over mean step {steps} ({len(arrivals)} pairs of test images, see 03)")

# %% [markdown]
# In (a) there is nothing to walk between. Between two codes that the encoder has made, (b) walks
# more evenly than (c), which has to jump from one kind of object to another; what either shows
# half-way has no name. So walks do not tell a good space from a bad one. What (b) lacks are good
# *draws*: N(0, 1) falls where no code has ever been, mostly by place and by scale (the last figure
# draws from where its codes are).
#
# (a) and (b) are easily taken for one failure, since both generate nothing. They have opposite
# causes: averaging makes the KL term far too *strong* and collapses the posterior, whereas it is a
# KL term that is too *weak* which empties the samples of meaning. The study's remedy, sum and sum,
# cures both (whether it is the *right* balance: 08).
#
# ## And on photographs?
#
# *Are the shapes to blame?* The same three balances on CIFAR-10 (JPEG), one training each, with
# every error summed:

# %% tags=["report"]
table = read_results(PROJECT / "figures" / "results.csv")
table = table[(table["model"] == "conv") & (table["params"] == "p2") & (table["seed"] == 0)]
for _, run in table[table["title"] == "CIFAR-10 (JPEG)"].iterrows():
    averaged_over = 3 * 32 * 32 if run["reduction"] == "mean" else 1
    print(
        f"{run['reduction']} + {run['beta']:g} KL: squared error "
        f"{run['test_reconstruction'] * averaged_over:.1f}, KL {run['test_kl']:.1f}, "
        f"{run['active_dimensions']:.0f} of {run['latent_dim']} latents active"
    )

# %% [markdown]
# They are not: (a) says nothing, (b) spends nearly seven hundred nats, and (c) lies between. (Of
# photographs (c) says more: the KL is higher, and spread over more latents.)
#
# ## Now you
#
# Make the draws smaller or larger. Is there a scale at which (b) feels at home, or does it take
# more than a scale, and when does (c) begin to exaggerate? The last row does not draw from N(0, 1)
# but from a normal distribution with the mean and the covariance of (b)'s own codes.

# %%
scale = 2.0
torch.manual_seed(seed)
z = scale * torch.randn(9, model.latent_dim)
rows = {label: model.decode(z).detach() for label, model in models.items()}
free = models["(b) sum + 0.0001 KL"]
mu = posterior_means(free, data.test)
group = mu.mean(0) + torch.randn(9, len(mu)) @ (mu - mu.mean(0)) / (len(mu) - 1) ** 0.5
rows["(b), from where\nits codes are"] = free.decode(group).detach()
figures.image_rows(rows, f"Draws from N(0, 1) times {scale:g}, decoded, and draws of (b)'s own")
plt.show()

# %% [markdown]
# That is what the study asked, and how its models compare with the linear one; the
# [README](../README.md) has all results. The rest asks what it left open. Next: [06, is it the
# convolution, or the budget, the size, the stopping rule?](06_fair_comparison.ipynb)
