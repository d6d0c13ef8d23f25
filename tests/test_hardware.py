import pytest
import torch
from helpers import TINY

from vae_core.config import Config
from vae_core.runs import hardware
from vae_core.runs.hardware import choose_device, choose_precision

CPU = torch.device("cpu")
SHAPE = (3, 32, 32)


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """Set what a measurement gives, on a processor with bfloat16; return how often it was made."""
    calls = []
    monkeypatch.setattr(hardware, "CACHE", tmp_path / "precision.json")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})

    def set_speeds(float32, bfloat16):
        def measure(*arguments):
            calls.append(arguments)
            return {"float32": float32, "bfloat16": bfloat16}

        monkeypatch.setattr(hardware, "measure_speeds", measure)
        monkeypatch.setattr(hardware, "KNOWN_CHOICES", {})
        return calls

    return set_speeds


@pytest.mark.parametrize(
    ("float32", "bfloat16", "expected"),
    [(1000, 2000, "bfloat16"), (1000, 1100, "float32"), (2560, 1700, "float32")],
)
def test_auto_takes_bfloat16_only_if_it_is_clearly_faster(measured, float32, bfloat16, expected):
    measured(float32, bfloat16)
    choice = choose_precision(Config("fc", TINY), SHAPE, CPU)
    assert choice.precision == expected
    assert choice.images_per_second == {"float32": float32, "bfloat16": bfloat16}


def test_it_is_measured_once_and_said_on_one_line(measured, monkeypatch, capsys):
    calls = measured(1000, 2000)
    choices = [choose_precision(Config("fc", TINY, seed=seed), SHAPE, CPU) for seed in range(3)]
    assert len(calls) == 1
    assert choices[0] == choices[1] == choices[2]
    (line,) = capsys.readouterr().err.splitlines()
    assert "bfloat16" in line and "1,000" in line and "2,000" in line
    measured(2000, 1000)  # another process reads the file
    assert choose_precision(Config("fc", TINY), SHAPE, CPU).precision == "bfloat16"
    assert len(calls) == 1
    measured(2000, 1000)
    assert choose_precision(Config("conv", TINY), SHAPE, CPU).precision == "float32"
    assert len(calls) == 2


def test_a_damaged_or_unwritable_cache_is_measured_again(measured, tmp_path, monkeypatch):
    for content in ("{", "[]", '{"a": 1}'):
        (tmp_path / "precision.json").write_text(content)
        measured(1000, 2000)
        assert choose_precision(Config("fc", TINY), SHAPE, CPU).precision == "bfloat16"
        (tmp_path / "precision.json").unlink()
    (tmp_path / "precision.json").mkdir()
    measured(1000, 2000)
    assert choose_precision(Config("fc", TINY), SHAPE, CPU).precision == "bfloat16"


def test_what_is_asked_for_or_cannot_be_bfloat16_is_not_measured(measured, monkeypatch):
    calls = measured(1, 2)
    assert choose_precision(Config("fc", TINY, precision="bfloat16"), SHAPE, CPU).precision == (
        "bfloat16"
    )
    assert choose_precision(Config("fc", TINY), SHAPE, torch.device("mps")).precision == "float32"
    assert choose_precision(Config("linear", TINY), SHAPE, CPU).precision == "float32"
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    assert choose_precision(Config("fc", TINY), SHAPE, CPU).precision == "float32"
    assert calls == []


def test_a_measurement_takes_steps_in_both_precisions():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    speeds = hardware.measure_speeds(Config("fc", TINY), SHAPE, CPU)
    assert set(speeds) == {"float32", "bfloat16"}
    assert all(speed > 0 for speed in speeds.values())
    assert torch.equal(before, torch.get_rng_state())


def test_an_unknown_device_is_named_with_those_there_are():
    assert choose_device("cpu") == CPU
    with pytest.raises(ValueError, match=r"abacus.*cpu"):
        choose_device("abacus")
