import errno
import json
import os
import pickle
from dataclasses import replace
from unittest.mock import Mock

import pytest
import torch
from helpers import contents, one_line
from safetensors.torch import load_file, save

from vae_core import checkpoints, storage
from vae_core.checkpoints import HISTORY, RUN, STATE, WEIGHTS, CheckpointError, load_run
from vae_core.training import State

IDENTITY = {"config": {"seed": 0}, "code": {"the loss": "c0de"}}
BUILT = {"name": "conv", "latent_dim": 2, "image_shape": [3, 32, 32]}
EPOCHS = [dict.fromkeys(checkpoints.HISTORY_COLUMNS, epoch + 0.1) for epoch in range(3)]
TENSORS = {
    "weights/a": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last).requires_grad_(),
    "step/a": torch.tensor(7.0),
    "best/b": torch.randn(5).bfloat16(),
}


def test_a_run_may_be_moved_and_its_history_saved_by_a_spreadsheet(trained, finished):
    text = (finished / HISTORY).read_text().replace(",", ";").replace("\n", "\r\n")
    (finished / HISTORY).write_bytes(text.encode("utf-8-sig"))
    run = load_run(str(finished))
    weights, others = run.model.state_dict(), trained.model.state_dict()
    assert all(torch.equal(weights[name], others[name]) for name in weights | others)
    assert replace(run, model=None) == replace(trained, model=None, folder=finished)
    assert not run.model.training and type(run.history[0]["epoch"]) is int


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_weights_may_be_kept_in_half_the_bytes(trained, tmp_path, precision):
    checkpoints.write_run(replace(trained, folder=tmp_path), precision)
    assert {value.dtype for value in load_file(tmp_path / WEIGHTS).values()} == {precision}
    for name, value in load_run(tmp_path).model.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, trained.model.state_dict()[name].to(precision).float())


def test_a_state_is_read_as_it_was_written(tmp_path):
    assert checkpoints.read_state(tmp_path) is None
    with pytest.raises(FileNotFoundError, match=f"{tmp_path} holds nothing, no finished run"):
        load_run(tmp_path)
    checkpoints.write_state(tmp_path, State(TENSORS, EPOCHS), IDENTITY)
    (tensors, history), identity = checkpoints.read_state(tmp_path)
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in tensors | TENSORS)
    assert history == EPOCHS and identity == IDENTITY
    assert len((tmp_path / HISTORY).read_text().splitlines()) == 4
    with pytest.raises(FileNotFoundError, match="a training to go on with, no finished") as error:
        load_run(tmp_path)
    one_line(error)


class Trap:
    def __reduce__(self):
        return os._exit, (99,)


def exchanged(content):
    """Tensors of another state under this one's metadata: the format has no checksum itself."""
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    others = {name: value.detach().contiguous() * 2 for name, value in TENSORS.items()}
    return save(others, header["__metadata__"])


HARMS = {
    "cut": lambda content: content[: -len(content) // 3],
    "empty": lambda content: b"",
    "other": lambda content: b"not what it should be",
    "bytes": lambda content: b"\xff\xfe\x00" + content,
    "pickle": lambda content: pickle.dumps(Trap()),
    "flipped": lambda content: content[:-3] + bytes([content[-3] ^ 64]) + content[-2:],
    "nested": lambda content: b"[" * 100_000,
    "exchanged": exchanged,
}
IN_TEXT = [name for name in HARMS if name not in ("flipped", "exchanged")]  # that is a text again
CASES = [(name, harm) for name in (RUN, HISTORY) for harm in IN_TEXT]
CASES += [(WEIGHTS, harm) for harm in (*IN_TEXT, "flipped")] + [(STATE, harm) for harm in HARMS]
CASES += [(WEIGHTS, "missing"), (HISTORY, "missing")]


@pytest.mark.parametrize(("name", "harm"), CASES)
def test_a_damaged_file_is_named_and_never_executed(finished, name, harm):
    if name == STATE:
        checkpoints.write_state(finished, State(TENSORS, EPOCHS), IDENTITY)
    content = (finished / name).read_bytes()
    (finished / name).unlink()
    if harm != "missing":
        (finished / name).write_bytes(HARMS[harm](content))
    before = contents(finished)
    with pytest.raises(CheckpointError) as error:
        checkpoints.read_state(finished) if name == STATE else load_run(finished)
    assert one_line(error).startswith(f"{finished / name} ")
    assert contents(finished) == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": BUILT | {"name": "gone"}}, f"{RUN} .* register it"),
        ({"model": BUILT | {"name": "fc"}}, f"{WEIGHTS} .* in loading state_dict for FCVAE"),
        ({"model": BUILT | {"latent_dim": 3}}, f"{WEIGHTS} .* size mismatch"),
        ({"model": None}, f"{RUN} cannot be loaded"),
        ({"config": {"model": "conv"}}, f"{RUN} cannot be loaded"),
        ({"summary": {"epochs": 9}}, f"{HISTORY} .* 2 epochs instead of 9"),
        ({"format": 1}, "format 1, this version reads 2.*train the run again"),
        ({"published": {"version": "1"}, "weights": "0"}, f"{WEIGHTS} .* git checkout -- "),
    ],
)
def test_a_record_that_does_not_fit_its_files(finished, change, said):
    about = json.loads((finished / RUN).read_text())
    (finished / RUN).write_text(json.dumps(about | change))
    with pytest.raises(CheckpointError, match=said) as error:
        load_run(finished)
    assert str(finished) in one_line(error)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EIO])
def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch, capsys, number):
    monkeypatch.setattr("fcntl.flock", Mock(side_effect=OSError(number, os.strerror(number))))
    if number == errno.EIO:
        with pytest.raises(OSError, match=r"\.run\.lock could not be written"):
            storage.held(tmp_path / "run").__enter__()
        return
    with storage.held(tmp_path / "run"):
        assert "without locks" in capsys.readouterr().err
