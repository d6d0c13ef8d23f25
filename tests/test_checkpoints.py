import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from helpers import contents, one_line, same_run, tiny_run
from safetensors.torch import load_file, save

from vae_core import checkpoints, storage
from vae_core.checkpoints import (
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
from vae_core.training import Config, State

IDENTITY = {"config": {"seed": 0}, "code": {"the loss": "c0de"}}


BUILT = {"name": "conv", "latent_dim": 2, "image_shape": [3, 32, 32]}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run, to be read only."""
    return tiny_run(tmp_path_factory.mktemp("trained"))


@pytest.fixture
def folder(trained, tmp_path):
    """A copy of the finished run that may be harmed."""
    return Path(shutil.copytree(trained.folder, tmp_path / "copy"))


def a_state(epochs=1, tensors=None):
    history = [dict.fromkeys(HISTORY_COLUMNS, epoch + 0.1) for epoch in range(epochs)]
    tensors = tensors or {"weights/a": torch.arange(6.0).reshape(2, 3), "step/a": torch.tensor(3.0)}
    return State(tensors, history)


def same_state(one, other):
    return one.history == other.history and all(
        torch.equal(one.tensors[name], other.tensors[name]) for name in one.tensors | other.tensors
    )


def test_a_run_is_read_as_it_was_written(trained, folder):
    run = load_run(str(folder))
    assert isinstance(run.config, Config) and run.config.params.name == "tiny"
    assert run.dataset["size"] == 32 and not run.model.training
    assert (run.history, run.config, run.summary, run.record) == (
        trained.history,
        trained.config,
        trained.summary,
        trained.record,
    )
    for name, value in run.model.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, trained.model.state_dict()[name])
    assert sorted(contents(folder)) == [HISTORY, RUN, WEIGHTS]


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_weights_may_be_kept_in_half_the_bytes(trained, tmp_path, precision):
    run = trained
    about = (run.history, run.config, run.dataset, run.summary, run.record)
    write_run(tmp_path, run.model, *about, precision)
    assert {value.dtype for value in load_file(tmp_path / WEIGHTS).values()} == {precision}
    for name, value in load_run(tmp_path).model.state_dict().items():
        assert torch.equal(value, run.model.state_dict()[name].to(precision).float())


def test_a_run_may_be_moved_and_its_history_saved_by_a_spreadsheet(trained, folder):
    text = (folder / HISTORY).read_text()
    spreadsheet = text.replace(",", ";").replace("\n", "\r\n").encode("utf-8-sig")
    (folder / HISTORY).write_bytes(spreadsheet)
    folder = folder.rename(folder.with_name("another name"))
    assert same_run(load_run(folder), load_run(trained.folder)) is False  # folders differ
    assert load_run(folder).history == trained.history


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_state_is_read_as_it_was_written(tmp_path, memory_format):
    assert read_state(tmp_path) is None
    tensors = {
        "weights/a": torch.randn(2, 3, 4, 4).to(memory_format=memory_format).requires_grad_(),
        "step/a": torch.tensor(7.0),
        "best/b": torch.randn(5).bfloat16(),
    }
    state = a_state(3, tensors)
    write_state(tmp_path, state, IDENTITY)
    found, identity = read_state(tmp_path)
    assert same_state(found, state) and identity == IDENTITY
    assert len((tmp_path / HISTORY).read_text().splitlines()) == 4


def test_no_finished_run_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing was trained there") as error:
        load_run(tmp_path / "no" / "run")
    assert "no/run" in one_line(error)
    write_state(tmp_path, a_state(), IDENTITY)
    with pytest.raises(FileNotFoundError, match="not finished"):
        load_run(tmp_path)


HARMS = {
    "cut": lambda content: content[: -len(content) // 3],
    "empty": lambda content: b"",
    "other": lambda content: b"not what it should be",
    "bytes": lambda content: b"\xff\xfe\x00" + content,
    "pickle": lambda content: pickle.dumps(Trap()),
    "flipped": lambda content: content[:-30] + bytes([content[-30] ^ 64]) + content[-29:],
}


class Trap:
    def __reduce__(self):
        return os._exit, (99,)


@pytest.mark.parametrize("name", [WEIGHTS, HISTORY, RUN])
@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_file_is_named_and_never_executed(folder, name, harm):
    if harm == "flipped" and name != WEIGHTS:
        pytest.skip("a changed sign in a text may still be a text")
    (folder / name).write_bytes(HARMS[harm]((folder / name).read_bytes()))
    before = contents(folder)
    with pytest.raises(CheckpointError) as error:
        load_run(folder)
    assert str(folder) in one_line(error)
    assert contents(folder) == before


@pytest.mark.parametrize("name", [WEIGHTS, HISTORY])
def test_a_missing_file_is_an_error(folder, name):
    (folder / name).unlink()
    with pytest.raises(CheckpointError) as error:
        load_run(folder)
    assert name in one_line(error)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": BUILT | {"name": "gone"}}, "register it"),
        ({"model": BUILT | {"name": "fc"}}, "cannot be loaded"),
        ({"model": BUILT | {"latent_dim": 3}}, "size mismatch"),
        ({"model": None}, "cannot be loaded"),
        ({"config": {"model": "conv"}}, "cannot be loaded"),
        ({"summary": {"epochs": 9}}, "2 epochs instead of 9"),
        ({"format": 1}, "format 1, this version reads 2"),
        ({"published": {}, "weights": "0"}, "git checkout"),
    ],
)
def test_a_record_that_does_not_fit_its_files(folder, change, said):
    about = json.loads((folder / RUN).read_text())
    published = {"published": {"version": "1"}} if "published" in change else {}
    (folder / RUN).write_text(json.dumps(about | change | published))
    with pytest.raises(CheckpointError, match=said) as error:
        load_run(folder)
    assert str(folder) in one_line(error)


def exchanged(content):
    """Tensors of another state under this one's metadata: the format has no checksum itself."""
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    others = {"weights/a": torch.ones(2, 3), "step/a": torch.tensor(3.0)}
    return save(others, header["__metadata__"])


@pytest.mark.parametrize("harm", [*HARMS.values(), exchanged])
def test_a_damaged_state_is_named(tmp_path, harm):
    write_state(tmp_path, a_state(), IDENTITY)
    (tmp_path / STATE).write_bytes(harm((tmp_path / STATE).read_bytes()))
    with pytest.raises(CheckpointError, match="damaged") as error:
        read_state(tmp_path)
    assert str(tmp_path / STATE) in one_line(error)


def test_a_state_of_another_format(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "FORMAT", 9)
    write_state(tmp_path, a_state(), IDENTITY)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="format 9, this version reads 2"):
        read_state(tmp_path)


@pytest.mark.parametrize("number", [0, 1])
def test_a_failed_write_leaves_the_former_state(tmp_path, monkeypatch, number):
    former, latter = a_state(1), a_state(2)
    write_state(tmp_path, former, IDENTITY)
    before = contents(tmp_path)
    fsync, calls = os.fsync, iter(range(99))

    def full(descriptor):
        if next(calls) == number:
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(storage.os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as error:
        write_state(tmp_path, latter, IDENTITY)
    name = [STATE, HISTORY][number]
    assert str(tmp_path / name) in one_line(error) and "untouched" in one_line(error)
    assert same_state(read_state(tmp_path)[0], [former, latter][number])
    assert (tmp_path / name).read_bytes() == before[name]
    assert not list(tmp_path.glob(".*"))


def test_what_a_kill_left_of_a_write_does_no_harm(tmp_path):
    for name in (STATE, HISTORY):
        (tmp_path / f".{name}.part").write_bytes(b"half of so")
    assert read_state(tmp_path) is None
    write_state(tmp_path, a_state(), IDENTITY)
    assert same_state(read_state(tmp_path)[0], a_state())
    assert sorted(contents(tmp_path)) == [HISTORY, STATE]


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch, capsys):
    def missing(lock, timeout=None):
        raise NotImplementedError

    monkeypatch.setattr(storage.FileLock, "acquire", missing)
    with storage.held(tmp_path / "run"):
        pass
    assert "without locks" in capsys.readouterr().err
