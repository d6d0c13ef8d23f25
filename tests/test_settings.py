"""The settings of make: what is read from the environment, and what is refused."""

import re
from pathlib import Path

import pytest
from dask.system import CPU_COUNT
from helpers import one_line

from vae_core.storage import PROJECT
from vae_study.__main__ import main
from vae_study.settings import STUDY_DEFAULTS, Settings


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ({}, {"dataset": "shapes", "seed": 0, "seeds": (0,), "retrain": False, "size": 32}),
        ({"SETS": "p1 p1"}, {"sets": ("p1",)}),
        ({"SETS": "p3, p1"}, {"sets": ("p3", "p1")}),
        ({"SEEDS": "0 00"}, {"seeds": (0,), "seed": 0}),
        ({"SEEDS": "4,1"}, {"seeds": (4, 1), "seed": 4}),
        ({"SEED": "3"}, {"seeds": (3,), "seed": 3}),
        ({"SEED": "3", "SEEDS": "0 1"}, {"seeds": (0, 1), "seed": 3}),
        ({"RETRAIN": "FALSE"}, {"retrain": False}),
        ({"RETRAIN": ""}, {"retrain": False}),
        ({"RETRAIN": "1"}, {"retrain": True}),
        ({"DATASET": "celeba", "LIMIT": " 64 "}, {"dataset": "celeba", "limit": 64}),
        ({"DATASET": "./shapes"}, {"dataset": str(Path.cwd() / "shapes")}),
        ({"DATASET": "it's\n$x"}, {"dataset": str(Path.cwd() / "it's\n$x"), "faces": "faces"}),
        ({"REPORT": "~/x"}, {"report": Path.home() / "x"}),
        ({"PRECISION": "float32"}, {"precision": "float32"}),
    ],
)
def test_settings_are_read_from_the_environment(texts, expected):
    settings = Settings.from_environment({f"VAE_{name}": text for name, text in texts.items()})
    assert {name: getattr(settings, name) for name in expected} == expected


def test_the_commands_of_the_study_have_defaults_that_settings_replace():
    settings = Settings.from_environment({}, **STUDY_DEFAULTS)
    assert settings.dataset == "cifar10"
    assert (settings.seed, settings.seeds) == (0, (0, 1, 2))
    settings = Settings.from_environment({"VAE_SEED": "1"}, **STUDY_DEFAULTS)
    assert (settings.seed, settings.seeds) == (1, (1,))
    settings = Settings.from_environment({"VAE_PRECISION": "float32"}, **STUDY_DEFAULTS)
    assert settings.precision == "float32"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("DATASET", "", "give a value"),
        ("REPORT", " ", "give a value"),
        ("DATASET", "caf\udce9", "UTF-8"),
        ("SETS", "p9", "p1, p2, p3"),
        ("SETS", ",", "unknown parameter set"),
        ("SEEDS", "", "give a value"),
        ("SEEDS", "one", "at least 0"),
        ("SEED", "-1", "at least 0"),
        ("SEED", "9" * 30, "at least 0"),
        ("LIMIT", "abc", "at least 1"),
        ("MAX_EPOCHS", "0", "at least 1"),
        ("WORKERS", "", "at least 1"),
        ("PRECISION", "float8", "auto, float32, bfloat16"),
        ("RETRAIN", "perhaps", "yes"),
    ],
)
def test_an_invalid_setting_is_named_in_one_line(name, text, message):
    with pytest.raises(ValueError, match=f"^{name} is ") as error:
        Settings.from_environment({f"VAE_{name}": text})
    assert message in one_line(error)


def test_a_command_prints_the_line_about_an_invalid_setting(monkeypatch, capsys):
    monkeypatch.setenv("VAE_SEEDS", "x")
    assert main("report") == 1
    printed = capsys.readouterr().err
    assert printed.startswith("error: SEEDS is 'x': ") and printed.count("\n") == 1


def test_every_setting_that_the_makefile_passes_on_is_one():
    makefile = (PROJECT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    names = re.search(r"^SETTINGS := (.*)$", makefile, re.MULTILINE)[1].split()
    assert {name.lower() for name in names} <= Settings.__dataclass_fields__.keys()


def test_there_is_one_training_a_core_or_one_on_a_gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert Settings().training_workers == CPU_COUNT
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert Settings().training_workers == 1
    assert Settings(workers=3).training_workers == 3
