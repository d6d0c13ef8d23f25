# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Tuning: three parameter sets
#
# The study varies what every first VAE project varies: the batch size, the learning rate and the
# number of latent dimensions. This notebook gathers the runs of all sets into the study's table,
# puts the published numbers beside ours, and measures two things that the study says in words:
# which settings oscillate, and when a training stops. Each set is trained with several seeds,
# because one run says nothing about how far the next one would be from it.

# %% tags=["parameters"]
params = "p1 p2 p3"
dataset = "shapes"
seed = 0
seeds = "0 1"
max_epochs = 2
limit = 512
fraction = 1.0
precision = "float32"

# %%
import matplotlib.pyplot as plt

from vae_core import figures
from vae_core.claims import claims_table
from vae_core.data import load_dataset
from vae_core.experiment import train_or_load
from vae_core.latent import imagine
from vae_core.parameter_sets import parameter_set
from vae_core.results import (
    early_stopping_table,
    oscillation_table,
    parameter_table,
    result,
    results_table,
)

# %% [markdown]
# ## The sets
#
# A larger batch averages more pictures into one step: steadier steps, fewer of them in an epoch.
# A smaller learning rate makes each step shorter. More latent dimensions let the model say more,
# if it is worth the nats.

# %%
sets = [parameter_set(name) for name in params.split()]
parameter_table(sets)

# %%
data = load_dataset(dataset, limit=limit, fraction=fraction)
runs = [
    train_or_load(model, parameters, data, int(number), max_epochs, precision=precision)
    for parameters in sets
    for model in ("conv", "fc")
    for number in dict.fromkeys(seeds.split())
]
results = [result(run) for run in runs]
print(f"{len(runs)} runs on {data.title}, seeds {seeds}")

# %% [markdown]
# ## The table
#
# Loss of the best epoch in nats per picture, mean ± standard deviation over the seeds. The
# training loss is the mean over the training pictures while they are learned; the test loss and
# its two parts, reconstruction and KL, are means over the test pictures afterwards. The published
# columns are the study's figures for CIFAR-10; they can be compared with ours only where the data
# is CIFAR-10, and a data set with simpler pictures has lower losses for that reason alone. The
# last column shows one decoded draw from the prior, the same latent for models with as many
# dimensions.

# %% tags=["report"]
first = [run for run in runs if run.config["seed"] == int(seeds.split()[0])]
samples = [imagine(run.model, 1, seed)[0] for run in first]
results_table(results, samples)

# %% [markdown]
# ## All curves
#
# Validation losses of the runs with the first seed. The colour is the model, the line's style the
# parameter set.

# %% tags=["report"]
curves = {f"{run.config['params']['name']} {run.model.title}": run for run in first}
figures.loss_curves(
    curves, f"All parameter sets on {data.title}, seed {seeds.split()[0]}", training=False
)
plt.show()

# %% [markdown]
# ## Which settings oscillate?
#
# A loss that jumps from epoch to epoch has a step that is too long or too noisy. Let $L_t$ be the
# validation loss after epoch $t$. Where the trend is locally straight and the jumps are
# independent with standard deviation $s$,
#
# $$L_{t-1} - 2 L_t + L_{t+1}$$
#
# has the variance $6 s^2$, so the root mean square of these bends over $\sqrt{6}$ estimates $s$
# whatever the slope. The first third of the epochs, where the loss falls steeply, is left out. A
# short training is nothing but steep, so with fewer than fifteen epochs there is no estimate (–),
# and with barely more it is a rough one that the curve's own bend can still enlarge.

# %% tags=["report"]
oscillation_table(results)

# %% [markdown]
# ## When does a training stop?
#
# Early stopping watches the training loss here, as the study's figures imply. The same histories
# tell where it would have stopped had it watched the validation loss. "–" means that the rule
# found no reason to stop before the training ended.

# %%
early_stopping_table(runs)

# %% [markdown]
# A rule that waits for a fall of 0.5 nats in five epochs stops on any long plateau, and whether
# a training crosses a plateau in time can hang on its seed. Rows of one set and model that stop
# at very different epochs say that the published number of epochs is one draw of several.
#
# ## What is left of the claims?
#
# Each claim says that one figure is larger than another. The difference is taken seed by seed;
# the table shows its mean with the 95 % confidence interval (Student's t). A claim **holds** where
# that interval lies above zero; where it contains zero, these seeds do not show it. With two seeds
# the interval is almost always too wide to say anything; three are the least. Each interval is at
# 95 % by itself, and with so many of them one may well miss.
#
# The models are compared where early stopping left them. A model that was stopped early, with its
# loss still falling, looks worse than it is, and a part of its difference is the rule's.

# %% tags=["report"]
claims_table(results)
