# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Faces
#
# The convolutional VAE again, unchanged, on another kind of picture. The study trains it on 30 %
# of CelebA's training part (48,831 of 162,770 faces), each cropped to its centre square and
# resized to 32 × 32. Faces are all alike in a way that the pictures of CIFAR-10 are not: eyes
# above nose above mouth, always in the middle. A model can spend its nats on what differs.
#
# As it stands, this notebook uses a handful of drawn faces. `make report FACES=celeba` takes the
# real ones.

# %% tags=["parameters"]
params = "p2"
dataset = "faces"
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
from vae_core.latent import interpolate, posterior_means, prior_draws, traverse

# %%
data = load_dataset(dataset, limit=limit, fraction=fraction)
run = train_or_load("conv", params, data, seed, max_epochs, precision=precision, retrain=retrain)
test = run.summary["test"]
print(f"{data.title}: {len(data.train)} training pictures, {run.summary['epochs']} epochs")
print(
    f"test loss {test['loss']:.0f} = reconstruction {test['reconstruction']:.0f} "
    f"+ KL {test['kl']:.0f} nats per picture, mean over {len(data.test)} test pictures"
)

# %% tags=["report"]
figures.loss_curves({f"CVAE {params}": run}, f"CVAE on {data.title}: loss and its two parts")
plt.show()

# %% [markdown]
# The study's training stopped after about 22 epochs.
#
# ## What is kept of a face
#
# Pose, hair, skin, smile and light survive; what makes a face that of one person in particular is
# mostly too fine for the nats that it would cost.

# %% tags=["report"]
faces = data.test[:10]
rows = {"original": faces, "CVAE": run.model.reconstruct(faces / 255)}
figures.picture_rows(rows, f"Test faces of {data.title} and their reconstructions, {params}")
plt.show()

# %% [markdown]
# ## Faces of nobody
#
# Decoded draws from the prior.

# %% tags=["report"]
z = prior_draws(run.model, 24, seed)
figures.picture_grid(
    run.model.decode(z), f"CVAE, {params}: faces from the prior ({data.title})", 12
)
plt.show()

# %% [markdown]
# ## From one face to another
#
# Straight lines between the posterior means of two test faces. Each step should be a face.

# %% tags=["report"]
means = posterior_means(run.model, data.test[:8])
strips = {
    f"faces {pair + 1}": interpolate(run.model, means[2 * pair], means[2 * pair + 1], steps)
    for pair in range(4)
}
figures.interpolation_rows(strips, f"CVAE, {params}, {data.title}: between two encoded faces")
plt.show()

# %% [markdown]
# ## What one dimension means
#
# Start from one face, move one latent dimension from 3 below to 3 above its value, and leave the
# others alone. Shown are the four dimensions that carry the most nats over the test faces.
# Nothing asks a dimension to mean one thing, so most of them change several things at once.

# %%
statistics = posterior_statistics(run.model, data.test)
busiest = statistics["kl"].argsort(descending=True)[:4].tolist()
walks = {
    f"dimension {dimension}": traverse(run.model, means[0], dimension) for dimension in busiest
}
figures.picture_rows(walks, f"CVAE, {params}, {data.title}: one latent dimension at a time")
plt.show()

# %%
active = int((statistics["variance"] > 0.01).sum())
print(
    f"{active} of {run.model.latent_dim} latent dimensions are active "
    "(variance of the posterior means over the test faces above 0.01)"
)
