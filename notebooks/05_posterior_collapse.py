# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Two terms, one balance
#
# The loss of a variational autoencoder adds two numbers that know nothing of each other: a squared
# error and a divergence. Their balance decides what comes out. This notebook trains the same CVAE
# three times and changes nothing but that balance:
#
# - **(a) mean and sum**: the squared error *averaged* over the 3072 values of a picture, beside the
#   KL divergence summed over the latent dimensions. The reconstruction term is 3072 times lighter
#   than the ELBO asks for.
# - **(b) sum, and a KL weight near nothing**: the squared error summed, the KL term times 0.0001.
# - **(c) sum and sum**: what the study settled on, and what the ELBO says.

# %% tags=["parameters"]
params = "p2"
dataset = "shapes"
seed = 0
max_epochs = 2
limit = 512
fraction = 1.0
precision = "float32"
retrain = False
steps = 10

# %%
import matplotlib.pyplot as plt

from vae_core import figures
from vae_core.data import load_dataset
from vae_core.evaluation import posterior_statistics
from vae_core.experiment import train_or_load
from vae_core.latent import interpolate, posterior_means, prior_draws
from vae_core.results import collapse_table

# %%
data = load_dataset(dataset, limit=limit, fraction=fraction)
balances = {
    "(a) mean + KL": {"reduction": "mean"},
    "(b) sum + 0.0001 KL": {"beta": 1e-4},
    "(c) sum + KL": {},
}
runs = {
    label: train_or_load(
        "conv", params, data, seed, max_epochs, precision=precision, retrain=retrain, **balance
    )
    for label, balance in balances.items()
}
models = {label: run.model for label, run in runs.items()}

# %% [markdown]
# ## Which term won?
#
# A latent dimension is **active** if the posterior means of different pictures differ in it: if
# their variance over the test pictures is above 0.01 (Burda et al. 2016). A dimension that is not
# active says nothing about the picture; its posterior is the prior, and its KL is nothing.
#
# The table measures all three with the same ruler: the squared error summed over a picture's 3072
# values and the KL divergence with its full weight, in nats per picture, means over the test
# pictures.

# %% tags=["report"]
collapse_table(models, data.test)

# %% tags=["report"]
spectra = {label: posterior_statistics(model, data.test)["kl"] for label, model in models.items()}
figures.kl_spectrum(spectra, f"KL of each latent dimension: CVAE, {params}, {data.title}")
plt.show()

# %% [markdown]
# - In **(a)** the KL term wins. Each nat that a dimension would spend saves less than a nat of an
#   error that has been made 3072 times lighter, so no dimension is worth its price. The posterior
#   **collapses** onto the prior: $q(z \mid x) = p(z)$ for every $x$. (The training ends after six
#   epochs at the latest, because its whole loss is below the 0.5 that early stopping counts as
#   progress. Waiting would change nothing: the price of a nat stays the same.)
# - In **(b)** the reconstruction term wins. Information is almost free, nearly every dimension is
#   used, and the posteriors become so narrow that they are points again: a plain autoencoder, with
#   its holes.
# - In **(c)** the two are in balance: the dimensions that are worth their nats are used and the
#   others rest on the prior.
#
# The study's account of its first difficulty runs (a) and (b) together. Taken apart, they have
# opposite causes: averaging the squared error makes the KL term far too *strong* and collapses the
# posterior, whereas it is a KL term that is too *weak* which empties the samples of meaning. The
# remedy that the study chose, sum and sum, is right for both.
#
# ## Reconstructions
#
# With a collapsed posterior the decoder knows nothing about the picture and can do no better than
# the mean picture.

# %% tags=["report"]
shown = data.test[:steps]
rows = {
    "original": shown,
    **{label: model.reconstruct(shown / 255) for label, model in models.items()},
}
figures.picture_rows(rows, f"Reconstructions of test pictures: CVAE, {params}, {data.title}")
plt.show()

# %% [markdown]
# ## Samples from the prior
#
# Here it is (b) that fails: its posteriors are narrow and lie anywhere but where the prior draws.
# The samples of (a) are all the same picture, since its decoder has learned to ignore the latents.

# %% tags=["report"]
samples = {label: model.decode(prior_draws(model, steps, seed)) for label, model in models.items()}
figures.picture_rows(samples, f"Samples from the prior: CVAE, {params}, {data.title}")
plt.show()

# %% [markdown]
# ## Interpolation between two pictures
#
# The same two test pictures for all three. In (a) there is nothing to walk between. In (b) nothing
# has drawn the posteriors together, and the walk is close to a cross-fade: one picture fades while
# the other appears. In (c) each step is a picture.

# %% tags=["report"]
means = {label: posterior_means(model, data.test[:2]) for label, model in models.items()}
strips = {label: interpolate(models[label], *ends, steps) for label, ends in means.items()}
figures.interpolation_rows(
    strips, f"Between two encoded test pictures: CVAE, {params}, {data.title}"
)
plt.show()
