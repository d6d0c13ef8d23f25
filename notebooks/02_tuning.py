# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What do three parameter sets tell, and how sure is it?
#
# The study trains both models with three parameter sets and draws its conclusions from one run of
# each: a batch size, a learning rate, a number of latent dimensions. Here every set has several
# seeds, and every conclusion is put beside what the seeds say. As stored, the notebook shows the
# finished study on CIFAR-10 (JPEG); `dataset` takes any other.

# %% tags=["parameters"]
params = "p1 p2 p3"
dataset = "published"  # or images of your own, which the lines below are for
seed = 0
seeds = "0"  # of your own trainings; the published table has 0, 1, 2
max_epochs = 100
limit = None
size = 32
precision = "auto"

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from vae_core import figures
from vae_core.config import parameter_set
from vae_core.data import dataset_info, load_dataset
from vae_core.evaluation import oscillation, posterior_statistics
from vae_core.intervals import format_mean_sd, welch_difference
from vae_core.latent import generate
from vae_core.models import MODELS
from vae_core.runs import published_run, train_or_load
from vae_core.runs.results import read_results, result_row
from vae_core.storage import PROJECT
from vae_core.training import best_epoch, stopping_epoch
from vae_study.claims import (
    ORIGINAL_RESULTS,
    claims_table,
    results_table,
    with_original_loss,
)

# %%
sets = params.split()
if dataset == "published":
    title = "CIFAR-10 (JPEG)"
    table = with_original_loss(read_results(PROJECT / "figures" / "results.csv"))
    table = table[table["title"] == title]
    runs = [published_run(model, name, "cifar10-jpeg") for name in sets for model in ("fc", "conv")]
else:
    data = load_dataset(dataset, limit=limit, fraction=dataset_info(dataset).fraction, size=size)
    title = data.title
    options = {"max_epochs": max_epochs, "precision": precision}
    runs = [
        train_or_load(model, name, data, int(number), **options)
        for name in sets
        for model in ("fc", "conv")
        for number in seeds.replace(",", " ").split()
    ]
    solved = [train_or_load("linear", name, data, seed, **options) for name in sets]
    table = pd.DataFrame([result_row(run) for run in [*runs, *solved]])
first = [run for run in runs if run.config.seed == runs[0].config.seed]
counted = f"seeds {', '.join(map(str, sorted(table['seed'].unique())))}"


# %% tags=["report"]
def by_set(axis, column, published):
    """Draw a column of the table for each set and model: seeds as dots, means with intervals."""
    for place, name in enumerate(sets):
        for model, side in (("fc", -0.12), ("conv", 0.12)):
            chosen = table[(table["params"] == name) & (table["model"] == model)]
            figures.seed_dots(axis, place + side, chosen[column].tolist(), model)
            if (name, model) in ORIGINAL_RESULTS:
                level = ORIGINAL_RESULTS[name, model][published]
                colour = MODELS[model].colour
                axis.plot(place + side, level, "s", mfc="none", color=colour)
    axis.set_xticks(range(len(sets)), sets)
    axis.set_xlabel("parameter set")


figure, axes = figures.panels(2, f"Three parameter sets on {title}, {counted}", (12, 4.5))
by_set(axes[0, 0], "train_loss", published=1)
by_set(axes[0, 1], "epochs", published=0)
axes[0, 0].set(title="training loss of the best epoch", ylabel="nats per image")
axes[0, 1].set(title="epochs until early stopping", ylabel="epochs")
level = table[table["model"] == "linear"]["train_loss"].mean()
axes[0, 0].axhline(level, color=MODELS["linear"].colour, linestyle="--", label="linear VAE")
for model in ("fc", "conv"):
    label = f"{MODELS[model].title}: seeds, mean and 95 % interval"
    axes[0, 0].plot([], [], "o-", color=MODELS[model].colour, label=label)
axes[0, 0].plot([], [], "s", mfc="none", color="black", label="published, genuine CIFAR-10")
figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
plt.show()

# %% [markdown]
# A dot is a run, a bar the mean of the seeds with its 95 % interval, a square what the study
# published for genuine CIFAR-10. (On genuine test images these models lose some 1.2 nats more:
# `data/README.md`.) The losses of a model with one set lie close together; the epochs at which it
# stops often do not.
#
# The dashed line was not trained: it is the *linear* VAE, which has a closed form. On CIFAR-10
# (JPEG) no FC-VAE of the study gets below it, although its layers could come close to what a matrix
# does, and longer trainings do (06). So a part of the difference between red and blue is not what
# the models can say, but how far their trainings got.
#
# ## The sets
#
# A larger batch averages more images into one step: steadier steps, fewer of them in an epoch. A
# smaller learning rate makes each step shorter. More latent dimensions let the model say more, if
# it is worth the nats.

# %%
pd.DataFrame([vars(parameter_set(name)) for name in sets]).set_index("name")

# %% [markdown]
# *Which two of them would you compare to learn what the learning rate does?* There are none: any
# two differ in two things. So nothing below can be laid to the batch, the rate or the latents
# alone; the question of this notebook is what the study could see with three such sets. (06 changes
# the learning rate, and nothing else.)

# %% [markdown]
# ## The table
#
# Losses of the best epoch in nats per image, mean ± standard deviation over the seeds. The training
# loss is the mean over the training images while they are learned; the test loss and its parts are
# means over the test images afterwards. The published columns are for genuine CIFAR-10. (The study
# calls its losses average losses, and does not say of which images; we take them for those of
# training, on which its rule of stopping looks.)

# %% tags=["report"]
results_table(table)

# %% [markdown]
# ## What do they generate?
#
# The study says that p2 gives the most coherent images of the FC-VAE. *Which rows are the FC-VAE's,
# and which of them is p2?* The rows come in an order drawn by lot; the cell below has the key.

# %% tags=["report"]
order = np.random.default_rng(2).permutation(len(first))
letters = dict(zip("ABCDEF", order, strict=False))
figures.samples(
    {letter: first[place].model for letter, place in letters.items()},
    f"Decoded draws from the prior, models trained on {title}",
    n=12,
    seed=1,
)
plt.show()

# %%
for letter, place in letters.items():
    print(f"{letter}: {first[place].config.params.name} {first[place].model.title}")

# %% [markdown]
# The FC-VAEs that were ended early, p1 and p3, are smoother, and that is all that twelve draws
# show. Whether p2 is more *coherent* nobody has measured here, nor has the study.
#
# ## All curves
#
# Validation losses of the first seed, without the first epoch. The colour is the model, the line's
# style the set.

# %% tags=["report"]
figures.loss_curves(
    {f"{run.config.params.name} {run.model.title}": run for run in first},
    f"All parameter sets on {title}, seed {first[0].config.seed}",
    training=False,
)
plt.show()

# %% [markdown]
# ## Which settings oscillate?
#
# A loss that jumps from epoch to epoch has a step that is too long or too noisy. Let $L_t$ be the
# validation loss after epoch $t$. Where the trend is straight and the jumps are independent with
# standard deviation $s$, the bend
#
# $$L_{t-1} - 2 L_t + L_{t+1}$$
#
# has the variance $6 s^2$, so the root mean square of the bends over $\sqrt{6}$ estimates $s$
# whatever the slope. The first third of the epochs, where the loss falls steeply, is left out, and
# fewer than fifteen epochs say nothing (–).


# %%
def long_enough(values):
    """Say how the runs oscillate that are long enough to be measured."""
    values = values.dropna()
    return format_mean_sd(values, 2) if len(values) else "–"


oscillating = table.groupby(["params", "model"])["oscillation"].apply(long_enough).unstack()
oscillating = oscillating[[name for name in oscillating if name != "linear"]]
oscillating.rename(columns={name: MODELS[name].title for name in oscillating})

# %% [markdown]
# (Nats, mean ± standard deviation over the seeds.) The FC-VAE's are larger in every set, and the
# spread between seeds is as large as the differences: three seeds do not tell the settings apart.
# The measure is `vae_core.evaluation.oscillation`; try it on a curve whose jumps you know:

# %%
jumps = 0.5 * np.random.default_rng(0).standard_normal(200)
curve = [{"validation_loss": 90 - 0.1 * t + jump} for t, jump in enumerate(jumps)]
print(f"jumps of standard deviation 0.50 on a slope: measured {oscillation(curve):.2f}")

# %% [markdown]
# ## When does a training stop?
#
# The rule (01): a training ends when five epochs in a row fail to beat the last progress by more
# than 0.5 nats. *Look at how much each run gained in its last
# five epochs. How sure would you be that it had nothing left to learn?*

# %% tags=["report"]
figure, axes = figures.panels(
    1,
    f"Fall of the training loss over five epochs, {title}, seed {first[0].config.seed}",
    (10, 4.5),
)
gained = []
for run in first:
    losses = [row["train_loss"] for row in run.history]
    gains = [before - after for before, after in zip(losses, losses[5:], strict=False)]
    gained.append(gains)
    label = f"{run.config.params.name} {run.model.title}"
    line = figures.LINES[sets.index(run.config.params.name) % len(figures.LINES)]
    axes[0, 0].plot(range(6, len(losses) + 1), gains, line, color=run.model.colour, label=label)
axes[0, 0].axhline(0.5, color="black", linewidth=1, label="0.5, the rule's min_delta")
axes[0, 0].set(xlabel="epoch", ylabel="fall over five epochs, nats per image", yscale="log")
axes[0, 0].legend(ncols=2)
plt.show()

# %% [markdown]
# None of them came to rest: each still gained something in its last five epochs. (Where a run is
# stopped its line is at 0.5 or below. Not every dip below ends a run, for the rule counts from the
# last epoch that made progress and the figure from five epochs back.) The FC-VAE with p2 dips,
# gains more again, and goes on for another thirty epochs. *Were the others ended at the same
# place?*

# %%
for run, gains in zip(first, gained, strict=True):
    if run.model.name == "fc":
        end = len(run.history)
        low = next((n for n, gain in enumerate(gains, start=6) if gain < 0.5), end)
        loss, kl = (run.history[low - 1][f"train_{part}"] for part in ("loss", "kl"))
        print(
            f"FC-VAE {run.config.params.name} first gained less than 0.5 in five epochs in epoch "
            f"{low}, at a loss of {loss:.1f} and a KL of {kl:.1f}, and ended in epoch {end}"
        )

# %% [markdown]
# *And what did each know by then?* Count the latents that carry more than 0.1 nats each, over
# images that the model has imagined:

# %% tags=["report"]
for run in first:
    kl = posterior_statistics(run.model, generate(run.model, 2000))["kl"]
    used, share = int((kl > 0.1).sum()), kl[kl > 0.1].sum() / kl.sum()
    name, model = run.config.params.name, run.model
    ends = table[(table["params"] == name) & (table["model"] == model.name)]["epochs"]
    parts = f"{used} latents with {share:.0%} of the KL; epochs of {counted}:"
    print(f"{name} {model.title}: {parts} {', '.join(f'{n:.0f}' for n in ends)}")

# %% [markdown]
# The FC-VAE was ended with nine latents that matter in p1 and in p3, and has fourteen at the end of
# p2. That its dip was a wait for more of them is a guess, for the weights of that epoch were not
# kept; p3 ended about where p2 dipped, p1 two nats and a half above. Nor was it the seed: with p1
# all three stopped at the same epoch. (`figures/results.csv` counts latents by the usual threshold,
# see 05, which takes whatever varies at all for active, and so gives p3 some ninety.) The study's
# FC-VAE with p1 seems to have got past such a plateau, by its epochs and its loss, and we cannot
# say why. Either way *epochs until it stopped* tells of a rule and a plateau more than of a model,
# and the losses are those of runs that still had something to learn.
#
# *Would the validation loss have stopped them elsewhere?* Only an earlier stop can be seen, since
# the histories end where the training loss ended them; – says that there was none.

# %%
rows = {}
for run in first:
    row = {}
    for part in ("train", "validation"):
        losses = [epoch[f"{part}_loss"] for epoch in run.history]
        stop = stopping_epoch(losses, run.config.patience, run.config.min_delta)
        kept = run.history[best_epoch(losses[:stop]) - 1]["validation_loss"]
        row |= {f"stop by {part}": stop or "–", f"validation loss kept by {part}": f"{kept:.1f}"}
    rows[f"{run.config.params.name} {run.model.title}"] = row
pd.DataFrame(rows).transpose()

# %% [markdown]
# It would have stopped most of them earlier, and one long before. Which loss a rule looks at is a
# choice as well: it would have cost the FC-VAE four nats with p2, and gained it a nat or so with p1
# and p3, where the training loss has kept an epoch in which the validation loss had jumped.
#
# ## What is left of the study's claims?
#
# Each claim says that one figure is larger than another. The difference is taken seed by seed, for
# models with one seed see the images in one order; the table has its mean with the 95 % interval
# (Student's t). A claim **holds** where the mean is above zero and a
# two-sided test gives p < 0.05. Whoever asks three times is
# three times as likely to be fooled once, so the tests of one claim are corrected for their number
# (Holm 1979): *which interval lies above zero and yet is not enough?*

# %% tags=["report"]
pd.set_option("display.max_colwidth", None)
claims_table(table)

# %%
others = {
    "by the training loss of the best epoch": ("training loss", {"test_loss": table["train_loss"]}),
    "without p1": ("test loss", {"params": table["params"].replace("p1", None)}),
}
for how, (loss, changed) in others.items():
    print(how)
    for row in claims_table(table.assign(**changed).dropna(subset="params")).itertuples():
        if "test loss" in row[1]:
            print(f"- {row[1].replace('test loss', loss)}: {row.difference}, {row.verdict}")
if dataset == "published":
    print("unpaired, as in 06")
    of = table.set_index(["params", "model"]).sort_index()
    p2 = ("p2", "fc")
    for column, larger, smaller in (
        ("test_loss", ("p3", "fc"), p2),
        ("epochs", p2, ("p2", "conv")),
    ):
        result = welch_difference(of.loc[larger, column], of.loc[smaller, column])
        parts = " − ".join(" ".join(name) for name in (larger, smaller))
        print(f"- {column.replace('_', ' ')}, {parts}: {result}, p = {result.p_value:.3f}")

# %% [markdown]
# The interval of the epochs with p2 does: asked alone it would be enough, as one of three it is
# not. With three seeds a verdict hangs on such choices. By the training loss p2 would suit the
# FC-VAE better than p3, too. Unpaired, as the models are compared in 06, two more claims would
# hold: that, and that the CVAE stops earlier with p2 (the last lines above). We keep the paired
# test, which was chosen before we saw this. And that the CVAE is the more stable of the two rests
# in part on the FC-VAE's early end with p1: without that set three fifths of the difference are
# left, and no verdict.
#
# ## Now you
#
# Replay the rule on the stored histories with a patience and a threshold of your own.

# %%
patience, min_delta = 3, 1.0
for run in first:
    losses = [row["train_loss"] for row in run.history]
    stop = stopping_epoch(losses, patience, min_delta)
    where = f"stops after {stop} epochs" if stop else f"does not stop within {len(losses)} epochs"
    print(f"{run.config.params.name} {run.model.title}: {where}")

# %% [markdown]
# Next: [03, is there something sensible between two images?](03_interpolation.ipynb)
