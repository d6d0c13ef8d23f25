import errno
import hashlib
import io
import json
import os
import pickle
from dataclasses import replace
from unittest.mock import Mock

import pytest
import torch
from helpers import contents, one_line
from safetensors.torch import load_file

from vae_core.runs.checkpoints import (
    HISTORY,
    HISTORY_COLUMNS,
    RUN,
    STATE,
    WEIGHTS,
    CheckpointError,
    load_run,
    read_state,
    write_run,
    write_state,
)
from vae_core.storage import locked
from vae_core.training import TrainingState

IDENTITY = {"config": {"seed": 0}, "code": {"the loss": "c0de"}}
HISTORY_ROWS = [dict.fromkeys(HISTORY_COLUMNS, epoch + 0.1) for epoch in range(3)]
WEIGHT = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
MOMENTS = {"state": {0: {"step": torch.tensor(7.0), "exp_avg": WEIGHT * 2}}, "param_groups": []}
STATE_VALUE = TrainingState(HISTORY_ROWS, {"a": WEIGHT}, MOMENTS, {"a": WEIGHT.bfloat16()})


def test_a_run_may_be_moved(trained, finished):
    run = load_run(str(finished))
    weights, expected = run.model.state_dict(), trained.model.state_dict()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert replace(run, model=None) == replace(trained, model=None, folder=finished)
    assert not run.model.training
    assert type(run.history[0]["epoch"]) is int


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_may_be_kept_in_half_the_bytes(trained, tmp_path, dtype):
    write_run(replace(trained, folder=tmp_path), dtype)
    assert {value.dtype for value in load_file(tmp_path / WEIGHTS).values()} == {dtype}
    for name, value in load_run(tmp_path).model.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, trained.model.state_dict()[name].to(dtype).float())


def test_a_state_is_read_as_it_was_written(tmp_path):
    assert read_state(tmp_path) is None
    write_state(tmp_path, STATE_VALUE, IDENTITY)
    state, identity = read_state(tmp_path)
    assert state.history == HISTORY_ROWS
    assert identity == IDENTITY
    assert torch.equal(state.model["a"], WEIGHT)
    assert state.model["a"].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(state.optimizer["state"][0]["exp_avg"], WEIGHT * 2)
    assert torch.equal(state.best["a"], WEIGHT.bfloat16())
    assert len((tmp_path / HISTORY).read_text().splitlines()) == 4
    with pytest.raises(FileNotFoundError, match="unfinished training") as error:
        load_run(tmp_path)
    one_line(error)


class Trap:
    def __reduce__(self):
        return os._exit, (99,)


def trap_with_checksum(content):
    buffer = io.BytesIO()
    torch.save({"format": 2, "identity": "{}", "state": Trap()}, buffer)
    payload = buffer.getvalue()
    return hashlib.sha256(payload).hexdigest().encode() + payload


DAMAGE = {
    "cut": lambda content: content[: -len(content) // 3],
    "empty": lambda content: b"",
    "other": lambda content: b"not what it should be",
    "bytes": lambda content: b"\xff\xfe\x00" + content,
    "pickle": lambda content: pickle.dumps(Trap()),
    "flipped": lambda content: content[:-3] + bytes([content[-3] ^ 64]) + content[-2:],
    "nested": lambda content: b"[" * 100_000,
    "trap": trap_with_checksum,
}
FOR_TEXT = [name for name in DAMAGE if name not in ("flipped", "trap")]
CASES = [(name, damage) for name in (RUN, HISTORY) for damage in FOR_TEXT]
CASES += [(name, damage) for name in (WEIGHTS, STATE) for damage in DAMAGE]
CASES += [(WEIGHTS, "missing"), (HISTORY, "missing")]


@pytest.mark.parametrize(("name", "damage"), CASES)
def test_a_damaged_file_is_named_and_never_executed(finished, name, damage):
    if name == STATE:
        write_state(finished, STATE_VALUE, IDENTITY)
    content = (finished / name).read_bytes()
    (finished / name).unlink()
    if damage != "missing":
        (finished / name).write_bytes(DAMAGE[damage](content))
    before = contents(finished)
    read = read_state if name == STATE else load_run
    with pytest.raises(CheckpointError) as error:
        read(finished)
    assert one_line(error).startswith(f"{finished / name} ")
    assert contents(finished) == before


TINY_CONFIG = {
    "model": "conv",
    "params": {"name": "tiny", "batch_size": 16, "learning_rate": 1e-3, "latent_dim": 2},
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"name": "gone", "image_shape": [3, 32, 32]}}, f"{RUN} .*'gone'"),
        ({"config": TINY_CONFIG | {"model": "fc"}}, f"{WEIGHTS} .*FCVAE"),
        ({"model": {"name": "conv", "image_shape": [3, 64, 64]}}, f"{WEIGHTS} .*"),
        ({"model": None}, f"{RUN} cannot be loaded"),
        ({"config": {"model": "conv"}}, f"{RUN} cannot be loaded"),
        ({"config": TINY_CONFIG | {"colour": 1}}, f"{RUN} cannot be loaded.*colour"),
        ({"summary": {"epochs": 9}}, f"{HISTORY} .*2 epochs instead of 9"),
        ({"format": 1}, "format 1.*train the run again"),
        ({"published": {"version": "1"}, "weights": "0"}, f"{WEIGHTS} .*git checkout -- "),
    ],
)
def test_a_run_file_that_does_not_fit_the_others_is_an_error(finished, change, message):
    content = json.loads((finished / RUN).read_text())
    del content["checksum"]
    (finished / RUN).write_text(json.dumps(content | change))
    with pytest.raises(CheckpointError, match=message) as error:
        load_run(finished)
    assert str(finished) in one_line(error)


@pytest.mark.parametrize("loss", ["99.5", "NaN", "Infinity"])
def test_a_loss_that_was_changed_by_hand_is_noticed(finished, loss):
    text = (finished / RUN).read_text()
    before = json.dumps(json.loads(text)["summary"]["test"]["loss"])
    (finished / RUN).write_text(text.replace(before, loss))
    with pytest.raises(CheckpointError, match=RUN) as error:
        load_run(finished)
    one_line(error)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_a_warning(tmp_path, monkeypatch, capsys, number):
    monkeypatch.setattr("fcntl.flock", Mock(side_effect=OSError(number, os.strerror(number))))
    with locked(tmp_path / "run"):
        assert "without locks" in capsys.readouterr().err


def test_a_lock_that_cannot_be_written_is_an_error(tmp_path, monkeypatch):
    failure = OSError(errno.EIO, os.strerror(errno.EIO))
    monkeypatch.setattr("fcntl.flock", Mock(side_effect=failure))
    with (
        pytest.raises(OSError, match=r"\.run\.lock could not be written"),
        locked(tmp_path / "run"),
    ):
        pass
