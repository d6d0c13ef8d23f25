"""A change in any code that a run's numbers go through is another run; any other change is not."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from vae_core.models import MODELS
from vae_core.storage import PROJECT

ALL = set(MODELS)
FC = {"fc", "fc-half", "fc-double", "fc-conv", "conv-fc"}
CONV = {"conv", "conv-half", "conv-double", "fc-conv", "conv-fc", "local", "ae"}

# file below vae_core, text, its replacement, and the models whose runs are trained again
CHANGES = [
    (
        "models/fc.py",
        "nn.Linear(inputs, outputs), nn.ReLU()",
        "nn.Linear(inputs, outputs), nn.GELU()",
        FC,
    ),
    ("models/fc.py", "int(512 * self.width)", "int(500 * self.width)", FC),
    ("models/conv.py", '"kernel_size": 4', '"kernel_size": 6', CONV),
    ("models/conv.py", "int(32 * cls.width)", "int(16 * cls.width)", CONV),
    (
        "models/hybrid.py",
        "encoder_model, decoder_model = FCVAE, ConvVAE",
        "encoder_model, decoder_model = FCVAE, FCVAE",
        {"fc-conv"},
    ),
    ("models/local.py", "bound = inputs**-0.5", "bound = inputs**-0.4", {"local"}),
    ("models/local.py", "range(4)", "range(2, 4)", {"local"}),
    ("models/linear.py", "alpha=1 / images", "alpha=1 / (images - 1)", {"linear"}),
    ("models/autoencoder.py", "return mu", "return 2 * mu", {"ae"}),
    ("models/vae.py", "torch.exp(0.5 * logvar)", "torch.exp(logvar)", ALL),
    ("loss.py", "0.5 * (mu.square()", "0.6 * (mu.square()", ALL),
    ("evaluation.py", "+ 8", "+ 7", ALL),
    ("training.py", "return beta / 2", "return beta / 3", ALL),
    ("training.py", "(1 + math.cos(math.pi * progress)) / 2", "(1 + math.cos(progress)) / 2", ALL),
    ("training.py", "VARIANCE_IMAGES = 5000", "VARIANCE_IMAGES = 4000", ALL),
    (
        "training.py",
        "ORDER, NOISE, FLIPS, LAYERS = 0, 1, 2, 3",
        "ORDER, NOISE, FLIPS, LAYERS = 0, 1, 3, 2",
        ALL,
    ),
    # what no number depends on
    ("models/fc.py", '"""The FC-VAE with half as many hidden units."""', '"""Half."""', set()),
    ("models/fc.py", "# 3072 → 512 → 256 for 3×32×32", "# a comment", set()),
    ("models/vae.py", "do not fit this", "are wrong for this", set()),
    ("models/conv.py", '"CVAE × 2"', '"wide CVAE"', set()),
    ("training.py", "give images that vary", "try again", set()),
    ("evaluation.py", "1e-6", "1e-5", set()),  # of a linear probe
    ("latent.py", "(1 - alpha) * z1", "alpha * z1", set()),
    ("storage.py", "leave=False", "leave=True", set()),
]

SCRIPT = """
import importlib, json, sys
from pathlib import Path

def codes():
    for name in [name for name in sys.modules if name.split(".")[0] == "vae_core"]:
        del sys.modules[name]
    importlib.invalidate_caches()
    from vae_core.models import MODELS
    from vae_core.runs.fingerprints import training_code
    import linecache
    linecache.clearcache()
    return {name: training_code(model) for name, model in MODELS.items()}

sys.dont_write_bytecode = True
changes, changed = json.loads(sys.stdin.read()), []
before = codes()
for file, old, new in changes:
    path = Path("vae_core", file)
    text = path.read_text(encoding="utf-8")
    assert text.count(old) >= 1, (file, old)
    path.write_text(text.replace(old, new), encoding="utf-8")
    after = codes()
    changed.append([name for name in before if before[name] != after[name]])
    path.write_text(text, encoding="utf-8")
assert codes() == before
print(json.dumps(changed))
"""


@pytest.fixture(scope="module")
def changed_models(tmp_path_factory):
    """For each of `CHANGES`, the models whose identity changes, found in a copy of the code."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(PROJECT / "vae_core", folder / "vae_core")
    environment = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    changes = json.dumps([change[:3] for change in CHANGES])
    command = [sys.executable, "-B", "-c", SCRIPT]
    options = {"cwd": folder, "env": environment, "capture_output": True, "text": True}
    done = subprocess.run(command, input=changes, **options, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [set(names) for names in json.loads(done.stdout)]


@pytest.mark.parametrize("number", range(len(CHANGES)), ids=lambda number: CHANGES[number][2][:40])
def test_a_change_trains_again_exactly_the_models_that_go_through_it(changed_models, number):
    assert changed_models[number] == CHANGES[number][3]


MODEL = """
import torch
from torch import nn
from vae_core.models import VAE
from vae_core.runs.fingerprints import training_code

SLOPE = {slope}

def activation():
    return nn.LeakyReLU(SLOPE)

class Block(nn.Module):
    def forward(self, x):
        return activation()(x) * {factor}

class Mine(VAE):
    name, title = "mine", "mine"

    def __init__(self, latent_dim, image_shape):
        super().__init__(latent_dim, image_shape, hidden=3072)
        self.encoder = nn.Sequential(nn.Flatten(), Block())
        self.decoder = nn.Linear(latent_dim, 3072)

print(training_code(Mine)["the model"])
"""


def identity_of(tmp_path, source, how):
    if how == "script":
        path = tmp_path / "mine.py"
        path.write_text(source)
        command, given = [sys.executable, str(path)], None
    else:
        command, given = [sys.executable, "-"], source
    environment = os.environ | {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, input=given, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


@pytest.mark.parametrize("how", ["script", "standard input"])
def test_a_users_model_is_followed_too(tmp_path, how):
    first = identity_of(tmp_path, MODEL.format(slope=0.1, factor=1), how)
    changed = {"script": {"slope": 0.2, "factor": 1}, "standard input": {"slope": 0.1, "factor": 2}}
    assert first != identity_of(tmp_path, MODEL.format(**changed[how]), how)


def test_a_model_of_a_notebook_cell_is_followed_too():
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()

    def identity(slope, factor):
        result = shell.run_cell(MODEL.format(slope=slope, factor=factor))
        assert result.success
        return shell.run_cell('training_code(Mine)["the model"]').result

    assert identity(0.1, 1) == identity(0.1, 1)
    assert identity(0.1, 1) != identity(0.2, 1)
    assert identity(0.1, 1) != identity(0.1, 2)
