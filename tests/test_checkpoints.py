import ast
import json
import math
import os
import pickle
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from helpers import (
    contents,
    one_line,
    same_run,
    tiny_dataset,
    tiny_run,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save

import vae_core
from vae_core import checkpoints, files
from vae_core.checkpoints import (
    HISTORY,
    HISTORY_COLUMNS,
    RUN,
    STATE,
    WEIGHTS,
    CheckpointError,
    State,
    load_run,
    read_state,
    write_run,
    write_state,
)

MODULES = sorted(Path(vae_core.__file__).parent.glob("*.py"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run, to be read only."""
    return tiny_run(tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def another(tmp_path_factory):
    """A finished run with another seed, to be read only."""
    return tiny_run(tmp_path_factory.mktemp("another"), seed=1)


@pytest.fixture
def folder(trained, tmp_path):
    """A copy of the finished run that may be harmed, under its own name."""
    copy = tmp_path / trained.folder.parent.name / trained.folder.name
    shutil.copytree(trained.folder, copy)
    return copy


def a_state(epochs=1, tensors=None):
    history = [dict.fromkeys(HISTORY_COLUMNS, epoch + 0.1) for epoch in range(epochs)]
    tensors = tensors or {"weights/a": torch.arange(6.0).reshape(2, 3), "step/a": torch.tensor(3.0)}
    return State(tensors, history, {"config": {"seed": 0}, "code": "c0de"})


def same_state(one, other):
    return (
        one.tensors.keys() == other.tensors.keys()
        and all(torch.equal(one.tensors[name], other.tensors[name]) for name in one.tensors)
        and (one.history, one.identity) == (other.history, other.identity)
    )


# What is written is what is read


def test_a_run_is_read_as_it_was_written(trained, folder):
    run = load_run(str(folder))
    assert same_run(run, load_run(folder))
    assert all(
        torch.equal(value, trained.model.state_dict()[name])
        for name, value in run.model.state_dict().items()
    )
    assert (run.history, run.config, run.summary, run.record) == (
        trained.history,
        trained.config,
        trained.summary,
        trained.record,
    )
    assert not run.model.training
    assert all(value.dtype == torch.float32 for value in run.model.state_dict().values())
    assert sorted(contents(folder)) == [HISTORY, RUN, WEIGHTS]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(allow_nan=False), min_size=7, max_size=7), st.integers(1, 10**6))
def test_a_history_is_read_exactly(values, epoch):
    row = dict(zip(HISTORY_COLUMNS, [epoch, *values], strict=True))
    text = checkpoints._history_to_csv([row, row])
    (first, second) = checkpoints._history_from_csv(text.encode(), Path(HISTORY))
    assert first == second == row
    assert type(first["epoch"]) is int and list(first) == list(HISTORY_COLUMNS)
    assert [math.copysign(1, first[name]) for name in row] == [
        math.copysign(1, value) for value in row.values()
    ]


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_state_is_read_as_it_was_written(tmp_path, memory_format):
    tensors = {
        "weights/a": torch.randn(2, 3, 4, 4).to(memory_format=memory_format).requires_grad_(),
        "step/a": torch.tensor(7.0),
        "best/b": torch.randn(5).bfloat16(),
        "empty": torch.zeros(0, 3),
    }
    state = a_state(3, tensors)
    write_state(tmp_path, state)
    assert same_state(read_state(tmp_path), state)
    assert len((tmp_path / HISTORY).read_text().splitlines()) == 4


def test_no_state_is_none(tmp_path):
    assert read_state(tmp_path) is None
    assert read_state(tmp_path / "missing") is None


def test_a_run_can_be_written_again_from_what_was_read(folder):
    run = load_run(folder)
    half = {name: value.half() for name, value in run.model.state_dict().items()}
    record = {**run.record, "published": "1.0.0"}
    write_run(folder, half, run.history, run.config, run.summary, record)
    assert {value.dtype for value in load_file(folder / WEIGHTS).values()} == {torch.float16}
    published = load_run(folder)
    assert published.record == record
    assert (published.history, published.config) == (run.history, run.config)
    for name, value in published.model.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, half[name].float())


# What does not fit is an error that says so


def test_a_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        load_run(tmp_path / "no" / "run")
    assert "nothing was trained there" in one_line(error) and "no/run" in one_line(error)


def test_an_unfinished_run(tmp_path):
    write_state(tmp_path, a_state())
    with pytest.raises(FileNotFoundError) as error:
        load_run(tmp_path)
    assert "not finished" in one_line(error) and str(tmp_path) in one_line(error)


@pytest.mark.parametrize("name", [WEIGHTS, HISTORY, RUN])
@pytest.mark.parametrize(
    "harm",
    [
        lambda content: content[:-2],
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: content + b"\n0",
        lambda content: content[:200] + bytes([content[200] ^ 1]) + content[201:],
        lambda content: b"not what it should be",
        lambda content: b"\xff\xfe" + content,
    ],
    ids=["cut", "half", "empty", "longer", "flipped", "other", "bytes"],
)
def test_a_damaged_file_is_named(folder, name, harm):
    (folder / name).write_bytes(harm((folder / name).read_bytes()))
    before = contents(folder)
    with pytest.raises(CheckpointError) as error:
        load_run(folder)
    assert str(folder / name) in one_line(error) and "train" in one_line(error)
    assert contents(folder) == before


@pytest.mark.parametrize("name", [WEIGHTS, HISTORY])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match="missing") as error:
        load_run(folder)
    assert str(folder / name) in one_line(error)


@pytest.mark.parametrize("name", [WEIGHTS, HISTORY, RUN])
def test_a_file_of_another_run_is_recognised(folder, another, name):
    shutil.copy(another.folder / name, folder / name)
    with pytest.raises(CheckpointError, match=r"another run|belongs to the run") as error:
        load_run(folder)
    one_line(error)


@pytest.mark.parametrize("change", [shutil.copytree, os.rename])
@pytest.mark.parametrize("place", ["{0}-copy", "../other/{0}"])
def test_a_folder_that_was_copied_or_renamed_is_recognised(folder, change, place):
    target = folder.parent / place.format(folder.name)
    target.parent.mkdir(exist_ok=True)
    change(folder, target)
    with pytest.raises(CheckpointError, match="copied or renamed") as error:
        load_run(target)
    assert f"{folder.parent.name}/{folder.name}" in one_line(error)


def test_all_runs_may_move_together(folder, tmp_path):
    run = load_run(folder)
    moved = tmp_path / "elsewhere" / "data"
    shutil.copytree(folder.parent, moved / folder.parent.name)
    assert load_run(moved / folder.parent.name / folder.name).history == run.history


def rewritten(folder, change, weights=None):
    """Write the run's files again with a changed record, as a program with an error would."""
    run = load_run(folder)
    weights = weights or run.model.state_dict()
    write_run(folder, weights, run.history, run.config | change, run.summary, run.record)


@pytest.mark.parametrize(
    "change",
    [
        {"params": {"latent_dim": 3}},
        {"params": {"latent_dim": 0}},
        {"params": {}},
        {"params": None},
        {"model": "fc"},
        {"model": "unknown"},
        {"model": []},
    ],
)
def test_weights_of_another_model_are_refused(folder, change):
    rewritten(folder, change)
    with pytest.raises(CheckpointError, match="does not hold the weights") as error:
        load_run(folder)
    assert str(folder / WEIGHTS) in one_line(error)


@pytest.mark.parametrize("change", [{"to_mu.bias": None}, {"one.more": torch.zeros(1)}])
def test_missing_and_foreign_weights_are_refused(folder, change):
    weights = load_run(folder).model.state_dict() | change
    weights = {name: value for name, value in weights.items() if value is not None}
    rewritten(folder, {}, weights)
    with pytest.raises(CheckpointError, match="does not hold the weights"):
        load_run(folder)


def test_weights_that_are_no_safetensors_are_refused(folder, monkeypatch):
    monkeypatch.setattr(checkpoints, "to_safetensors", lambda tensors: b"no weights at all")
    rewritten(folder, {})
    with pytest.raises(CheckpointError, match="does not hold the weights"):
        load_run(folder)


def test_another_format_version_is_told(folder, monkeypatch):
    monkeypatch.setattr(checkpoints, "FORMAT", 2)
    with pytest.raises(CheckpointError, match="format 1, this version reads 2") as error:
        load_run(folder)
    assert str(folder / RUN) in one_line(error)
    monkeypatch.undo()
    write_state(folder, a_state())
    monkeypatch.setattr(checkpoints, "FORMAT", 2)
    with pytest.raises(CheckpointError, match="format version") as error:
        read_state(folder)
    assert str(folder / STATE) in one_line(error)


def test_a_state_whose_tensors_were_exchanged_is_recognised(tmp_path):
    """The library's own format has no checksum."""
    write_state(tmp_path, a_state())
    header = json.loads((tmp_path / STATE).read_bytes()[8:].partition(b"}}")[0] + b"}}")
    tensors = load_file(tmp_path / STATE)
    tensors["weights/a"] += 1
    (tmp_path / STATE).write_bytes(save(tensors, header["__metadata__"]))
    with pytest.raises(CheckpointError, match="damaged") as error:
        read_state(tmp_path)
    assert str(tmp_path / STATE) in one_line(error)


# Whole or not at all


def failing_at(monkeypatch, number):
    """Let the `number`th write of a file find the disk full when its bytes should reach it."""
    fsync, calls = os.fsync, iter(range(1_000_000))

    def full(descriptor):
        if next(calls) == number:
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(files.os, "fsync", full)


@pytest.mark.parametrize("number", [0, 1])
def test_a_failed_write_leaves_the_former_state(tmp_path, monkeypatch, number):
    former, latter = a_state(1), a_state(2)
    write_state(tmp_path, former)
    before = contents(tmp_path)
    failing_at(monkeypatch, number)
    with pytest.raises(OSError, match="No space left") as error:
        write_state(tmp_path, latter)
    name = [STATE, HISTORY][number]
    assert str(tmp_path / name) in one_line(error) and "untouched" in one_line(error)
    assert same_state(read_state(tmp_path), [former, latter][number])
    assert (tmp_path / name).read_bytes() == before[name]
    assert not list(tmp_path.glob(".*"))


def test_what_a_kill_left_of_a_write_does_no_harm(tmp_path):
    state = a_state()
    for name in (STATE, HISTORY):
        (tmp_path / f".{name}.part").write_bytes(b"half of so")
    assert read_state(tmp_path) is None
    write_state(tmp_path, state)
    assert same_state(read_state(tmp_path), state)
    assert sorted(contents(tmp_path)) == [HISTORY, STATE]


@contextmanager
def nobody():
    """Be without a superuser's rights, to whom no folder is read-only."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def public_folder():
    """A folder that everybody may read."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    yield path
    for folder in (path, *(below for below in path.rglob("*") if below.is_dir())):
        folder.chmod(0o755)
    shutil.rmtree(path)


def test_a_read_only_folder(public_folder):
    dataset = tiny_dataset()
    run = tiny_run(public_folder, dataset)
    for folder in (run.folder, run.folder.parent, public_folder):
        folder.chmod(0o555)
    with nobody():
        assert same_run(load_run(run.folder), run)
        assert same_run(tiny_run(public_folder, dataset), run)
        with pytest.raises(OSError, match="could not be written") as error:
            tiny_run(public_folder, dataset, seed=1)
    assert f"{run.folder.parent}" in one_line(error)


# Nothing in a file is ever executed


def payload(marker):
    """A pickle that writes a file when it is loaded."""

    class Trap:
        def __reduce__(self):
            return Path.write_text, (marker, "executed")

    return pickle.dumps(Trap())


def test_a_pickle_is_an_error_and_not_executed(folder, tmp_path):
    marker = tmp_path / "marker"
    trap = payload(marker)
    pickle.loads(trap)
    assert marker.read_text() == "executed"
    marker.unlink()
    torch.save({"a": torch.zeros(2)}, tmp_path / "torch.pt")

    write_state(folder, a_state())
    for name, read in (
        (WEIGHTS, load_run),
        (HISTORY, load_run),
        (RUN, load_run),
        (STATE, read_state),
    ):
        original = (folder / name).read_bytes()
        for content in (trap, (tmp_path / "torch.pt").read_bytes()):
            (folder / name).write_bytes(content)
            with pytest.raises(CheckpointError) as error:
                read(folder)
            assert str(folder / name) in one_line(error)
        (folder / name).write_bytes(original)
    assert not marker.exists()


UNSAFE_MODULES = {
    "pickle",
    "_pickle",
    "cPickle",
    "cloudpickle",
    "dill",
    "joblib",
    "marshal",
    "shelve",
}
UNSAFE_NAMES = {"eval", "exec", "compile", "__import__", "execfile"}
UNSAFE_CALLS = {"torch.load", "torch.save", "torch.hub", "torch.jit.load", "pandas.read_pickle"}


def unsafe(source):
    """List what in a module's source could execute bytes of a file."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Attribute):
            names = [ast.unparse(node)]
        elif isinstance(node, ast.Name):
            names = [node.id] if node.id in UNSAFE_NAMES else []
        elif isinstance(node, ast.keyword):
            names = ["allow_pickle"] if node.arg == "allow_pickle" else []
            found += names
        else:
            continue
        found += [
            name
            for name in names
            if name.split(".")[0] in UNSAFE_MODULES | UNSAFE_NAMES or name in UNSAFE_CALLS
        ]
    return found


def test_no_module_can_execute_the_bytes_of_a_file():
    assert len(MODULES) > 10
    assert {module.name: unsafe(module.read_text()) for module in MODULES} == {
        module.name: [] for module in MODULES
    }


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import torch\ntorch.load(path)",
        "from torch import load",
        "np.load(path, allow_pickle=True)",
        "eval(text)",
        "exec(text)",
        "from joblib import load",
    ],
)
def test_the_search_for_unsafe_code_finds_it(source):
    assert unsafe(source)
    assert not unsafe("model.eval()\nimport re\nre.compile('a')\nast.literal_eval('1')")
