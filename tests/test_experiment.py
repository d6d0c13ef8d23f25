import dataclasses
import json
import re
import shutil

import nbformat
import pytest
import torch
from helpers import (
    TINY,
    contents,
    dataset_of,
    full_disk,
    one_line,
    outcome,
    same_run,
    tiny_dataset,
    tiny_run,
)
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from vae_core import checkpoints, data, execute, experiment, loss, training
from vae_core.checkpoints import HISTORY, RUN, STATE, WEIGHTS, load_run, read_state
from vae_core.data import load_dataset
from vae_core.experiment import main, run_name, training_code
from vae_core.loss import elbo
from vae_core.parameter_sets import PARAMETER_SETS, ParameterSet
from vae_core.training import Config, TrainingDiverged


@pytest.fixture(scope="module")
def dataset():
    return tiny_dataset()


@pytest.fixture(scope="module")
def trained(dataset, tmp_path_factory):
    """A finished run, to be read only."""
    return tiny_run(tmp_path_factory.mktemp("trained"), dataset)


@pytest.fixture
def finished(trained, tmp_path):
    """The folder of a finished run in `tmp_path`, which may be harmed."""
    copy = tmp_path / trained.folder.parent.name / trained.folder.name
    shutil.copytree(trained.folder, copy)
    return copy


@pytest.fixture
def epochs(monkeypatch):
    """The numbers of the epochs that were trained."""
    numbers = []
    original = training._train_epoch

    def counted(model, optimizer, pictures, config, epoch, history):
        numbers.append(epoch)
        return original(model, optimizer, pictures, config, epoch, history)

    monkeypatch.setattr(training, "_train_epoch", counted)
    return numbers


@pytest.fixture
def interrupted(dataset, tmp_path, monkeypatch):
    """The folder of a run in `tmp_path` that was stopped after its first epoch."""
    with monkeypatch.context() as patch:
        patch.setattr(training, "_train_epoch", _stop_at(2))
        with pytest.raises(KeyboardInterrupt):
            tiny_run(tmp_path, dataset)
    (folder,) = (path for path in tmp_path.glob("tiny/*") if path.is_dir())
    assert len(read_state(folder).history) == 1
    return folder


def _stop_at(stopping, original=training._train_epoch):
    def stopped(model, optimizer, pictures, config, epoch, history):
        if epoch == stopping:
            raise KeyboardInterrupt
        return original(model, optimizer, pictures, config, epoch, history)

    return stopped


def previous(folder):
    return folder.with_name(f"{folder.name}.previous")


# A run is trained once, and goes on after an interruption


def test_a_finished_run_is_loaded(tmp_path, dataset, epochs, capsys):
    first = tiny_run(tmp_path, dataset)
    assert epochs == [1, 2]
    assert sorted(contents(first.folder)) == [HISTORY, RUN, WEIGHTS]
    before = contents(tmp_path)
    assert same_run(tiny_run(tmp_path, dataset), first)
    assert epochs == [1, 2] and contents(tmp_path) == before
    assert capsys.readouterr().err == ""


def test_the_same_call_gives_the_same_run_anywhere(tmp_path, dataset, trained):
    assert outcome(tiny_run(tmp_path, dataset).folder) == outcome(trained.folder)
    assert outcome(tiny_run(tmp_path, dataset, seed=1).folder) != outcome(trained.folder)


def test_ctrl_c_says_where_the_run_stands(capsys, interrupted):
    said = capsys.readouterr().err
    assert f"epoch 1 is kept in {interrupted}" in said
    assert "the same call goes on" in said and said.count("\n") == 1


def test_ctrl_c_before_the_end_of_an_epoch(tmp_path, dataset, monkeypatch, capsys):
    monkeypatch.setattr(training, "_train_epoch", _stop_at(1))
    with pytest.raises(KeyboardInterrupt):
        tiny_run(tmp_path, dataset)
    assert "no epoch is finished" in capsys.readouterr().err


@pytest.mark.parametrize("where", ["evaluate", "training_is_over"])
def test_ctrl_c_after_the_last_epoch(tmp_path, dataset, trained, monkeypatch, where, capsys):
    def stop(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        module = experiment if where == "evaluate" else checkpoints
        patch.setattr(module, "evaluate" if where == "evaluate" else "write_run", stop)
        with pytest.raises(KeyboardInterrupt):
            tiny_run(tmp_path, dataset)
    assert "epoch 2 is kept" in capsys.readouterr().err
    assert outcome(tiny_run(tmp_path, dataset).folder) == outcome(trained.folder)


def test_an_interrupted_run_goes_on(interrupted, tmp_path, dataset, trained, epochs):
    run = tiny_run(tmp_path, dataset)
    assert epochs == [2]
    assert outcome(run.folder) == outcome(trained.folder)
    assert sorted(contents(run.folder)) == [HISTORY, RUN, WEIGHTS]


@pytest.mark.parametrize(("model", "stop"), [*(("conv", stop) for stop in range(2, 8)), ("fc", 5)])
def test_early_stopping_does_not_notice_an_interruption(
    tmp_path, dataset, monkeypatch, model, stop
):
    """The best epoch is not the last one, and the waiting spans the interruption."""
    losses = [9.0, 7.0, 8.0, 5.0, 6.0, 5.5, 5.2, 4.9, 4.8]
    original = training._train_epoch

    def scripted(model, optimizer, pictures, config, epoch, history):
        row = original(model, optimizer, pictures, config, epoch, history)
        return row | {"train_loss": losses[epoch - 1]}

    options = {
        "max_epochs": 9,
        "patience": 3,
        "model": model,
        "dataset": dataset_of(dataset.train, 8, 4),
    }
    with monkeypatch.context() as patch:
        patch.setattr(training, "_train_epoch", scripted)
        whole = tiny_run(tmp_path / "whole", **options)
        patch.setattr(training, "_train_epoch", _stop_at(stop, scripted))
        with pytest.raises(KeyboardInterrupt):
            tiny_run(tmp_path / "parts", **options)
        patch.setattr(training, "_train_epoch", scripted)
        parts = tiny_run(tmp_path / "parts", **options)
    assert whole.summary["epochs"] == 7 and whole.summary["best_epoch"] == 4
    assert outcome(parts.folder) == outcome(whole.folder)
    assert parts.summary["test"] == whole.summary["test"]


def test_a_state_that_outlived_its_run_is_removed(interrupted, tmp_path, dataset, epochs):
    state = (interrupted / STATE).read_bytes()
    run = tiny_run(tmp_path, dataset)
    (interrupted / STATE).write_bytes(state)
    epochs.clear()
    assert same_run(tiny_run(tmp_path, dataset), run)
    assert epochs == [] and not (interrupted / STATE).exists()


@pytest.mark.parametrize("harm", [lambda state: state[:-1], lambda state: b"", lambda state: b"x"])
def test_a_damaged_state_is_kept_aside(interrupted, tmp_path, dataset, trained, harm, capsys):
    wreck = harm((interrupted / STATE).read_bytes())
    (interrupted / STATE).write_bytes(wreck)
    capsys.readouterr()
    run = tiny_run(tmp_path, dataset)
    assert outcome(run.folder) == outcome(trained.folder)
    assert (previous(interrupted) / STATE).read_bytes() == wreck
    (line,) = capsys.readouterr().err.splitlines()
    assert STATE in line and "damaged" in line and "training anew" in line


def test_a_state_of_another_run_is_not_continued(interrupted, tmp_path, dataset, epochs, capsys):
    other = interrupted.with_name(interrupted.name.replace("seed0", "seed1"))
    shutil.copytree(interrupted, other)
    capsys.readouterr()
    tiny_run(tmp_path, dataset, seed=1)
    assert epochs == [1, 2]
    assert "seed 0 instead of 1" in capsys.readouterr().err


def test_a_state_of_other_code_is_not_continued(
    interrupted, tmp_path, dataset, epochs, monkeypatch, capsys
):
    monkeypatch.setattr(experiment, "training_code", lambda: "other")
    tiny_run(tmp_path, dataset)
    assert epochs == [1, 2]
    assert "other training code" in capsys.readouterr().err


# A run is what was asked for, or it is not loaded


@pytest.mark.parametrize("name", [WEIGHTS, HISTORY, RUN])
def test_a_damaged_run_is_kept_and_trained_anew(finished, tmp_path, dataset, trained, name, capsys):
    (finished / name).write_bytes((finished / name).read_bytes()[:-9])
    before = contents(finished)
    run = tiny_run(tmp_path, dataset)
    assert outcome(run.folder) == outcome(trained.folder)
    assert contents(previous(finished)) == before
    (line,) = capsys.readouterr().err.splitlines()
    assert str(finished / name) in line and previous(finished).name in line


def test_weights_without_their_record_are_not_overwritten(finished, tmp_path, dataset, capsys):
    (finished / RUN).unlink()
    before = contents(finished)
    tiny_run(tmp_path, dataset)
    assert contents(previous(finished)) == before
    assert f"{RUN} is missing" in capsys.readouterr().err


def test_other_data_of_the_same_name(finished, tmp_path, capsys):
    before = contents(finished)
    run = tiny_run(tmp_path, tiny_dataset(seed=1))
    assert run.folder == finished and contents(previous(finished)) == before
    (line,) = capsys.readouterr().err.splitlines()
    assert "fingerprint" in line and previous(finished).name in line


def test_other_training_code(finished, tmp_path, dataset, monkeypatch, capsys):
    before = contents(finished)
    monkeypatch.setattr(experiment, "training_code", lambda: "other")
    run = tiny_run(tmp_path, dataset)
    assert run.record["code"] == "other" and contents(previous(finished)) == before
    (line,) = capsys.readouterr().err.splitlines()
    assert "other training code" in line


def test_another_format_version(finished, tmp_path, dataset, monkeypatch, capsys):
    before = contents(finished)
    monkeypatch.setattr(checkpoints, "FORMAT", 2)
    run = tiny_run(tmp_path, dataset)
    assert json.loads((run.folder / RUN).read_text())["format"] == 2
    assert contents(previous(finished)) == before
    assert "format 1" in capsys.readouterr().err


def test_a_published_run_outlives_its_code(finished, tmp_path, dataset, epochs, monkeypatch):
    run = load_run(finished)
    half = {name: value.half() for name, value in run.model.state_dict().items()}
    record = {**run.record, "published": "1.0.0"}
    checkpoints.write_run(finished, half, run.history, run.config, run.summary, record)
    monkeypatch.setattr(experiment, "training_code", lambda: "other")
    published = tiny_run(tmp_path, dataset)
    assert epochs == [] and published.record["published"] == "1.0.0"
    assert published.record["code"] == run.record["code"]
    # Its configuration and data must fit all the same.
    tiny_run(tmp_path, tiny_dataset(seed=1))
    assert epochs == [1, 2] and previous(finished).exists()


def test_retrain_keeps_the_former_run(finished, tmp_path, dataset, epochs, capsys):
    before = contents(finished)
    run = tiny_run(tmp_path, dataset, retrain=True)
    assert epochs == [1, 2] and contents(previous(finished)) == before
    assert outcome(run.folder) == outcome(previous(finished))
    assert "a new training was asked for" in capsys.readouterr().err
    # There is one former run, the last.
    second = contents(run.folder)
    tiny_run(tmp_path, dataset, retrain=True)
    assert contents(previous(finished)) == second


def test_an_unfinished_run_does_not_displace_a_finished_one(
    finished, tmp_path, dataset, monkeypatch, capsys
):
    before = contents(finished)
    with monkeypatch.context() as patch:
        patch.setattr(training, "_train_epoch", _stop_at(2))
        with pytest.raises(KeyboardInterrupt):
            tiny_run(tmp_path, dataset, retrain=True)
    assert contents(previous(finished)) == before
    capsys.readouterr()
    tiny_run(tmp_path, dataset, retrain=True)
    assert contents(previous(finished)) == before
    (line,) = capsys.readouterr().err.splitlines()
    assert "unfinished" in line and "a new training was asked for" in line


def test_a_kill_while_a_run_is_set_aside_loses_nothing(finished, tmp_path, dataset, monkeypatch):
    tiny_run(tmp_path, dataset, retrain=True)
    before = contents(finished)

    def killed(path):
        (path / WEIGHTS).unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(experiment.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            tiny_run(tmp_path, dataset, retrain=True)
    assert contents(finished) == before
    tiny_run(tmp_path, dataset, retrain=True)
    assert contents(previous(finished)) == before


@pytest.mark.parametrize("module", [training, loss, experiment.evaluation, experiment.models])
def test_the_training_code_is_what_is_executed(tmp_path, monkeypatch, module):
    code = training_code()
    with open(module.__file__, encoding="utf-8") as file:
        source = file.read()
    copy = tmp_path / "copy.py"
    monkeypatch.setattr(module, "__file__", str(copy))

    def hash_of(text):
        assert text != source
        copy.write_text(text, encoding="utf-8")
        return training_code()

    reworded = re.sub(r'"""(?=[A-Z])', '"""In other words: ', source)
    assert hash_of(f"# A comment.\n{source}\n\n# Another.\n") == code
    assert hash_of(reworded.replace("(\n", "(  # a comment\n")) == code
    assert hash_of(source + "\nEXTRA = 1\n") != code
    constants = {
        training: ("% 50", "% 51"),
        loss: ("0.5 *", "0.25 *"),
        experiment.evaluation: ("div_(255)", "div_(256)"),
        experiment.models: ('"stride": 2', '"stride": 1'),
    }
    assert hash_of(source.replace(*constants[module])) != code


NAMES = ["p1", "p1-seed0", "p1-64-0.001-128", "p1-64-0.001-128-seed0", "p2", "a", "a-mean", "a_1."]
CONFIGS = st.builds(
    Config,
    st.sampled_from(["fc", "conv"]),
    st.sampled_from(list(PARAMETER_SETS.values()))
    | st.builds(
        ParameterSet,
        st.sampled_from(NAMES),
        st.sampled_from([1, 2, 64, 128]),
        st.sampled_from([1e-3, 1e-5, 5e-4, 1, 0.1]),
        st.sampled_from([1, 2, 12, 128]),
    ),
    seed=st.sampled_from([0, 1, 10, 2**40]),
    max_epochs=st.sampled_from([1, 10, 100]),
    patience=st.sampled_from([1, 5, 51]),
    min_delta=st.sampled_from([0, 0.5, 5, 1e-7]),
    monitor=st.sampled_from(["train", "validation"]),
    beta=st.sampled_from([0, 1, 1.0, 1e-7, 0.1, 5.0]),
    reduction=st.sampled_from(["sum", "mean"]),
    precision=st.sampled_from(["auto", "float32", "bfloat16"]),
)


@settings(max_examples=400, deadline=None)
@given(CONFIGS, CONFIGS, st.sets(st.sampled_from([f.name for f in dataclasses.fields(Config)])))
def test_two_configurations_never_share_a_folder(one, other, taken):
    """The second one takes some fields from an unrelated third, so that they differ in few."""
    other = dataclasses.replace(one, **{name: getattr(other, name) for name in taken})
    assume(one != other)
    assert run_name(one) != run_name(other)


@settings(max_examples=200, deadline=None)
@given(CONFIGS, CONFIGS)
def test_unrelated_configurations_never_share_a_folder(one, other):
    assume(one != other)
    assert run_name(one) != run_name(other)


def test_names_of_the_study():
    assert run_name(Config("conv", PARAMETER_SETS["p1"])) == "conv-p1-seed0"
    config = Config("fc", PARAMETER_SETS["p3"], 2, monitor="validation", beta=0.1)
    assert run_name(config) == "fc-p3-seed2-validation-beta0.1"


@pytest.mark.parametrize("name", ["a/b", "..", "../../outside", "", "a b", "a\n", "a\0", None, 5])
def test_a_parameter_set_cannot_lead_out_of_the_folder(tmp_path, dataset, name):
    if name == "..":
        folder = tiny_run(tmp_path, dataset, params=dataclasses.replace(TINY, name=name)).folder
        assert folder.resolve().parent == (tmp_path / "tiny").resolve()
        return
    with pytest.raises(ValueError, match="parameter set's name") as error:
        tiny_run(tmp_path, dataset, params=dataclasses.replace(TINY, name=name))
    one_line(error)
    assert not contents(tmp_path)


# A full disk takes nothing away


def test_no_space_for_the_state(interrupted, tmp_path, dataset, trained):
    state = (interrupted / STATE).read_bytes()
    with full_disk(len(state) // 2), pytest.raises(OSError, match="File too large") as error:
        tiny_run(tmp_path, dataset)
    assert str(interrupted / STATE) in one_line(error)
    assert (interrupted / STATE).read_bytes() == state
    assert outcome(tiny_run(tmp_path, dataset).folder) == outcome(trained.folder)


def test_no_space_for_the_finished_run(tmp_path, dataset, trained, monkeypatch):
    original = checkpoints.write_run

    def write_run(*arguments):
        with full_disk(1_000_000):
            original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "write_run", write_run)
        with pytest.raises(OSError, match="File too large") as error:
            tiny_run(tmp_path, dataset)
    (folder,) = (path for path in tmp_path.glob("tiny/*") if path.is_dir())
    assert str(folder / WEIGHTS) in one_line(error)
    assert len(read_state(folder).history) == 2
    assert outcome(tiny_run(tmp_path, dataset).folder) == outcome(trained.folder)


@pytest.mark.parametrize("number", range(7))
def test_any_write_may_fail(tmp_path, dataset, trained, monkeypatch, number):
    """Of seven files, two for each epoch and three for the run, one cannot be written."""
    written = []
    original = checkpoints.write

    def write(path, content):
        written.append(path)
        if len(written) == number + 1:
            with full_disk(10):
                original(path, content)
        original(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "write", write)
        with pytest.raises(OSError, match="File too large") as error:
            tiny_run(tmp_path, dataset)
    assert str(written[-1]) in one_line(error) and len(written) == number + 1
    run = tiny_run(tmp_path, dataset)
    assert outcome(run.folder) == outcome(trained.folder)
    assert sorted(contents(run.folder)) == [HISTORY, RUN, WEIGHTS]


def test_no_space_on_the_command_line(tmp_path, capsys):
    arguments = ["--model", "conv", "--limit", "20", "--max-epochs", "1", "--device", "cpu"]
    with full_disk(100_000):
        assert main([*arguments, "--checkpoints", str(tmp_path)]) == 1
    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    assert line.startswith("error: ") and STATE in line and printed.out == ""


def test_no_space_for_the_cache(tmp_path):
    folder, root = tmp_path / "pictures", tmp_path / "root"
    folder.mkdir()
    for number in range(12):
        Image.new("RGB", (32, 32), (number, 7, 9)).save(folder / f"{number}.png")
    before = contents(folder)
    with full_disk(10_000), pytest.raises(OSError, match="File too large") as error:
        load_dataset(folder, root)
    assert str(root / "cache") in one_line(error)
    assert contents(folder) == before
    assert not list(root.rglob("*.u8")) and not list(root.rglob("*.json"))
    first = load_dataset(folder, root)
    # A second set that does not fit leaves the first one's cache as it is.
    before = contents(root)
    with full_disk(10_000), pytest.raises(OSError, match="File too large"):
        load_dataset(folder, root, seed=1)
    assert contents(root).items() >= before.items()
    assert torch.equal(load_dataset(folder, root).train, first.train)


NOTEBOOK = """# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% tags=["parameters"]
size = 10

# %%
print("x" * size)
"""


def test_no_space_for_the_executed_notebook(tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    source, output = tmp_path / "small.py", tmp_path / "report" / "small.ipynb"
    source.write_text(NOTEBOOK)
    output.parent.mkdir()
    output.write_text("the former notebook")
    output.with_suffix(".json").write_text("its status")
    before = contents(output.parent)
    with full_disk(300_000), pytest.raises(OSError, match="File too large") as error:
        execute.execute(source, output, {"size": 600_000}, 60)
    assert str(output) in one_line(error)
    assert contents(output.parent) == before

    assert execute.execute(source, output, {"size": 3}, 60)["status"] == "done"
    assert "xxx" in str(nbformat.read(output, as_version=4).cells[-1].outputs)
    assert sorted(contents(output.parent)) == ["small.ipynb", "small.json"]


def test_no_space_for_what_is_said_about_a_notebook(tmp_path, monkeypatch):
    source, output = tmp_path / "small.py", tmp_path / "report" / "small.ipynb"
    source.write_text(NOTEBOOK)
    output.parent.mkdir()
    output.write_text("the former notebook")
    before = contents(output.parent)
    executed = nbformat.v4.new_notebook()
    monkeypatch.setattr(execute.papermill, "execute_notebook", lambda *_, **options: executed)
    write = execute.write

    def full(path, content):
        with full_disk(10):
            write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(execute, "write", full)
        with pytest.raises(OSError, match="File too large") as error:
            execute.execute(source, output, {}, 60)
    assert str(output.with_suffix(".json")) in one_line(error)
    assert contents(output.parent) == before


@pytest.mark.parametrize(
    ("name", "status"), [("ValueError", "failed"), ("DatasetMissing", "skipped")]
)
def test_a_notebook_that_fails_takes_the_place_of_a_former_one(tmp_path, monkeypatch, name, status):
    source, output = tmp_path / "small.py", tmp_path / "report" / "small.ipynb"
    source.write_text(NOTEBOOK)
    output.parent.mkdir()
    output.write_text("the former notebook")

    def fail(*arguments, **options):
        raise execute.PapermillExecutionError(0, 2, "source", name, "why", ["line", "line"])

    monkeypatch.setattr(execute.papermill, "execute_notebook", fail)
    result = execute.execute(source, output, {}, 60)
    assert result["status"] == status and result["error"] == f"cell 2: {name}: why"
    expected = {"failed": ["small.failed.ipynb", "small.json", "small.log"]}
    assert sorted(contents(output.parent)) == expected.get(status, ["small.json", "small.log"])


# Numbers that leave the ground


@pytest.mark.parametrize("model", ["fc", "conv"])
def test_an_exploding_loss_is_told(tmp_path, dataset, model):
    hot = dataclasses.replace(TINY, learning_rate=1.0)
    with pytest.raises(TrainingDiverged, match=r"epoch 1, at step [23]") as error:
        tiny_run(tmp_path, dataset, model, hot)
    assert "no epoch was finished before" in one_line(error)
    assert "learning rate" in one_line(error)
    assert not list(tmp_path.rglob(RUN)) and not list(tmp_path.rglob(STATE))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_loss_that_is_no_number_is_told(
    interrupted, tmp_path, dataset, trained, monkeypatch, value
):
    before = contents(interrupted)
    calls = []

    def broken(*arguments):
        calls.append(1)
        parts = elbo(*arguments)
        return parts if len(calls) != 2 else parts._replace(total=parts.total * value)

    with monkeypatch.context() as patch:
        patch.setattr(training, "elbo", broken)
        with pytest.raises(TrainingDiverged, match=r"the loss .* in epoch 2, at step 2") as error:
            tiny_run(tmp_path, dataset)
    row = trained.history[0]
    assert (
        f"epoch 1 was still good: training loss {row['train_loss']:.2f}, "
        f"validation loss {row['validation_loss']:.2f}" in one_line(error)
    )
    assert contents(interrupted) == before
    assert outcome(tiny_run(tmp_path, dataset).folder) == outcome(trained.folder)


def test_a_validation_loss_that_is_no_number_is_told(tmp_path, dataset, monkeypatch):
    figures = {"loss": torch.nan, "reconstruction": torch.nan, "kl": 1.0}
    monkeypatch.setattr(training, "evaluate", lambda *_, **options: figures)
    with pytest.raises(TrainingDiverged, match=r"validation loss .* epoch 1, after its last"):
        tiny_run(tmp_path, dataset)
    assert not list(tmp_path.rglob(STATE))


@pytest.mark.parametrize("model", ["fc", "conv"])
@pytest.mark.parametrize("value", [0, 77, 255])
def test_pictures_that_are_all_the_same(tmp_path, model, value):
    pictures = torch.full((40, 3, 32, 32), value, dtype=torch.uint8)
    run = tiny_run(tmp_path, dataset_of(pictures, 24, 8), model, beta=0.0)
    assert all(torch.tensor(list(row.values())).isfinite().all() for row in run.history)
    assert run.history[-1]["train_loss"] < run.history[0]["train_loss"]


@pytest.mark.parametrize(
    ("pictures", "batch", "steps"),
    [(1, 16, 1), (1, 1, 1), (5, 16, 1), (17, 16, 2), (33, 16, 3), (32, 16, 2)],
)
def test_odd_numbers_of_pictures(tmp_path, dataset, monkeypatch, pictures, batch, steps):
    sizes, losses = [], []

    def counted(decoded, *arguments):
        parts = elbo(decoded, *arguments)
        sizes.append(len(decoded))
        losses.append(parts.total.detach())
        return parts

    monkeypatch.setattr(training, "elbo", counted)
    small = dataset_of(dataset.train, pictures, 1)
    run = tiny_run(
        tmp_path, small, params=dataclasses.replace(TINY, batch_size=batch), max_epochs=1
    )
    assert sizes == [batch] * (pictures // batch) + [pictures % batch] * (pictures % batch > 0)
    assert len(sizes) == steps
    assert run.history[0]["train_loss"] == pytest.approx(float(torch.cat(losses).mean()), rel=1e-6)


def test_a_constant_loss_stops_after_the_patience(tmp_path, dataset, monkeypatch):
    original = training._train_epoch
    monkeypatch.setattr(
        training, "_train_epoch", lambda *arguments: original(*arguments) | {"train_loss": 3.0}
    )
    run = tiny_run(tmp_path, dataset_of(dataset.train, 8, 4), max_epochs=30, patience=3)
    assert run.summary["epochs"] == 4 and run.summary["best_epoch"] == 1


# Values that make no sense


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": "cnn"}, "unknown model 'cnn'; choose one of fc, conv"),
        ({"params": "p9"}, "unknown parameter set 'p9'; choose one of p1, p2, p3"),
        ({"params": None}, "unknown parameter set None"),
        ({"device": "abacus"}, "unknown device 'abacus'"),
        ({"epochs": 3}, "unknown option 'epochs'"),
        ({"monitor": "test"}, "unknown monitor 'test'"),
        ({"max_epochs": 0}, "max_epochs is 0"),
        ({"max_epochs": 2.0}, "max_epochs is 2.0"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**63}, "seed is 9223372036854775808"),
        ({"beta": torch.nan}, "beta is nan"),
        ({"min_delta": -0.5}, "min_delta is -0.5"),
        ({"reduction": "max"}, "unknown reduction 'max'"),
        ({"precision": "int8"}, "unknown precision 'int8'"),
    ],
)
def test_values_that_make_no_sense(tmp_path, dataset, options, said):
    with pytest.raises(ValueError) as error:
        tiny_run(tmp_path, dataset, **options)
    assert said in one_line(error)
    assert not contents(tmp_path)


@pytest.mark.parametrize("options", [{"beta": 10**400}, {"min_delta": 10**400}])
def test_numbers_beyond_those_of_a_computer(tmp_path, dataset, options):
    with pytest.raises(ValueError):
        tiny_run(tmp_path, dataset, **options)


def test_a_learning_rate_beyond_those_of_a_computer():
    with pytest.raises(ValueError):
        ParameterSet("large", 1, 10**400, 1)


@pytest.mark.parametrize("device", ["cpu:x", "cpu:"])
def test_a_device_whose_number_is_none(tmp_path, dataset, device):
    with pytest.raises(ValueError):
        tiny_run(tmp_path, dataset, device=device)


def test_the_largest_seed(tmp_path, dataset):
    assert tiny_run(tmp_path, dataset, seed=2**63 - 1, max_epochs=1).summary["epochs"] == 1


# In a terminal


def program(tmp_path, *arguments):
    options = ["--limit", "20", "--max-epochs", "1", "--device", "cpu", *arguments]
    return main([*options, "--checkpoints", str(tmp_path)])


def test_the_program_trains_and_loads(tmp_path, epochs, capsys):
    assert program(tmp_path, "--model", "conv") == 0
    first = capsys.readouterr()
    folder = tmp_path / "shapes-limit20" / "conv-p1-seed0-max_epochs1"
    run = load_run(folder)
    assert first.err == "" and first.out.count("\n") == 1
    assert first.out.startswith(f"{folder}: 1 epochs, best 1; training loss ")
    assert f"test loss {run.summary['test']['loss']:.2f} (" in first.out
    assert program(tmp_path, "--model", "conv") == 0
    assert capsys.readouterr() == first and epochs == [1]
    assert program(tmp_path, "--model", "conv", "--retrain") == 0
    assert epochs == [1, 1] and previous(folder).exists()
    assert "a new training was asked for" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "cnn"], "unknown model 'cnn'"),
        (["--model", "fc", "--params", "p9"], "unknown parameter set 'p9'"),
        (["--model", "fc", "--dataset", "no-such-set"], "'no-such-set' is neither"),
        (["--model", "fc", "--limit", "0"], "limit is 0"),
        (["--model", "fc", "--fraction", "1.5"], "fraction is 1.5"),
        (["--model", "fc", "--max-epochs", "0"], "max_epochs is 0"),
        (["--model", "fc", "--seed", "-1"], "seed is -1"),
        (["--model", "fc", "--beta", "nan"], "beta is nan"),
        (["--model", "fc", "--device", "abacus"], "unknown device 'abacus'"),
    ],
)
def test_the_program_says_what_is_wrong(tmp_path, monkeypatch, arguments, said, capsys):
    monkeypatch.setitem(data.BUILT_IN, "shapes", (20, 4, 4))
    assert program(tmp_path, *arguments) == 1
    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    assert line.startswith("error: ") and said in line and printed.out == ""
    assert not contents(tmp_path)


@pytest.mark.parametrize("arguments", [[], ["--model", "fc", "--colour", "red"], ["--model"]])
def test_the_program_knows_its_options(tmp_path, arguments, capsys):
    with pytest.raises(SystemExit) as error:
        program(tmp_path, *arguments)
    assert error.value.code == 2
    assert "--" in capsys.readouterr().err.splitlines()[-1]


def test_the_program_is_stopped(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training, "_train_epoch", _stop_at(1))
    assert program(tmp_path, "--model", "fc") == 130
    assert capsys.readouterr().err.startswith("stopped; ")


def test_the_program_tells_of_an_exploding_loss(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(
        PARAMETER_SETS, "p1", dataclasses.replace(TINY, name="p1", learning_rate=1.0)
    )
    assert program(tmp_path, "--model", "fc", "--max-epochs", "9") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "infinite or not a number in epoch" in line
