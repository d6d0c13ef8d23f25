# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Fully connected against convolutional
#
# **Does replacing fully connected layers by convolutions measurably improve a variational
# autoencoder?** This notebook trains both models with one parameter set on the same pictures in
# the same order, and compares their losses, their reconstructions and their samples.
#
# As it stands, it runs in seconds on a handful of the built-in pictures, which is too little to
# learn from. `make report` runs it at full size for p1, p2 and p3.

# %% tags=["parameters"]
params = "p1"
dataset = "shapes"
seed = 0
max_epochs = 2
limit = 512
fraction = 1.0
precision = "float32"
retrain = False

# %%
import matplotlib.pyplot as plt

from vae_core import figures
from vae_core.data import load_dataset
from vae_core.experiment import train_or_load
from vae_core.latent import prior_draws
from vae_core.results import result, results_table

# %% [markdown]
# ## The pictures
#
# Every data set comes in three parts of 32 × 32 colour pictures: one to train on, one for
# validation, which is measured after each epoch and never learned, and one for the test, which is
# looked at once, at the end. The parts do not depend on `seed`, so that runs with different seeds
# differ by their training alone.

# %%
data = load_dataset(dataset, limit=limit, fraction=fraction)
print(
    f"{data.title}: {len(data.train)} training, {len(data.validation)} validation, "
    f"{len(data.test)} test pictures"
)

# %% [markdown]
# ## Why not a plain autoencoder?
#
# A plain autoencoder maps a picture to a point and back, and nothing but the reconstruction error
# tells it where to put the points. It scatters them, and the space between them is full of
# **holes**: places that no picture was ever mapped to, where the decoder shows nothing sensible.
# One can neither sample from such a space nor walk through it.
#
# A variational autoencoder (Kingma & Welling 2014) maps a picture $x$ to a *distribution*, the
# posterior
#
# $$q(z \mid x) = \mathcal{N}\left(\mu(x),\, \sigma^2(x)\right)$$
#
# and asks that it stay close to one fixed distribution, the prior $p(z) = \mathcal{N}(0, 1)$. A
# picture then covers a neighbourhood rather than a point, the neighbourhoods must share the same
# region around the origin, and the holes close.
#
# ## The loss
#
# The negative evidence lower bound (ELBO), for one picture with its 3072 values and for a latent
# space of $d$ dimensions:
#
# $$L(x) = \sum_{i=1}^{3072} \left(x_i - \hat{x}_i\right)^2
# + \frac{1}{2} \sum_{j=1}^{d} \left(\mu_j^2 + \sigma_j^2 - 1 - \log \sigma_j^2\right)$$
#
# The first sum is the **reconstruction** term: keep what the picture shows. The second is the
# **KL** divergence of the posterior from the prior: spend as few nats as possible on saying so.
# The two pull against each other, and each dimension of the latent space has to earn its keep: one
# that costs more nats than it saves in squared error falls back onto the prior.
#
# ## The reparameterization
#
# A draw from the posterior has no gradient. Writing it as
#
# $$z = \mu + \sigma \cdot \varepsilon, \qquad \varepsilon \sim \mathcal{N}(0, 1)$$
#
# moves the randomness into $\varepsilon$, which depends on nothing that is learned, and lets the
# gradient pass through $\mu$ and $\sigma$.
#
# ## The two models
#
# - **FC-VAE**: the picture as one long vector, through layers of 512 and 256 units to $\mu$ and
#   $\log \sigma^2$; the decoder mirrors the encoder.
# - **CVAE**: three strided convolutions halve the picture from 32 × 32 to 4 × 4 while the channels
#   grow from 3 to 128; transposed convolutions lead back. (CVAE is short for *convolutional* VAE
#   here; elsewhere it often means the *conditional* one.)
#
# The CVAE knows two things that the FC-VAE has to learn for each place anew: that neighbouring
# pixels belong together, and that an edge is an edge wherever it is.

# %%
fc = train_or_load("fc", params, data, seed, max_epochs, precision=precision, retrain=retrain)
conv = train_or_load("conv", params, data, seed, max_epochs, precision=precision, retrain=retrain)
runs = {"FC-VAE": fc, "CVAE": conv}
for name, run in runs.items():
    weights = sum(weight.numel() for weight in run.model.parameters())
    print(f"{name}: {weights / 1e6:.2f} million weights")

# %% [markdown]
# ## How they learn
#
# All figures are means over pictures, in nats per picture. The training loss is averaged while
# the weights still move, so it lags behind the validation loss at first; where it falls below
# the validation loss, the model begins to know its training pictures by heart. Training stops
# when the training loss has not fallen by 0.5 nats for five epochs, and the weights of the best
# epoch (the dot) are kept.

# %% tags=["report"]
figures.loss_curves(runs, f"Loss and its two parts on {data.title}, parameter set {params}")
plt.show()

# %% [markdown]
# The parts tell more than the total. The KL term is what a model *says* about a picture; the
# reconstruction term is what remains unsaid. A model that reconstructs better with fewer nats
# has understood more about how the pictures are made.

# %% tags=["report"]
results_table(map(result, runs.values()))

# %% [markdown]
# The published columns are the study's, for CIFAR-10: they compare with a run on CIFAR-10 only.

# %%
difference = fc.summary["test"]["loss"] - conv.summary["test"]["loss"]
better = "CVAE" if difference > 0 else "FC-VAE"
print(f"The {better}'s test loss is lower by {abs(difference):.0f} nats per picture (one seed).")

# %% [markdown]
# ## What they keep of a picture
#
# Test pictures, which neither model has learned, above what each model makes of them. Here the
# posterior mean is decoded, without noise. What is missing is what was not worth its nats: fine
# texture first, then small parts. The FC-VAE tends to lose edges and small differences of place:
# it has to learn each edge at each place anew, and has seen few pictures with this edge just here.

# %% tags=["report"]
shown = data.test[:10]
rows = {
    "original": shown,
    **{name: run.model.reconstruct(shown / 255) for name, run in runs.items()},
}
figures.picture_rows(rows, f"Test pictures of {data.title} and their reconstructions, {params}")
plt.show()

# %% [markdown]
# ## What they imagine
#
# Decoded draws from the prior: pictures of nothing in particular. If the posteriors of all
# pictures together fill the prior evenly, these look like pictures of the data set; where they
# leave gaps, a draw falls into one and shows a blend of several things.

# %% tags=["report"]
z = prior_draws(fc.model, 10, seed)
samples = {name: run.model.decode(z) for name, run in runs.items()}
figures.picture_rows(samples, f"Samples from the prior, trained on {data.title}, {params}")
plt.show()

# %% [markdown]
# Both models decode the same ten draws, but each has its own latent space, so the pictures of a
# column have nothing to do with one another.
