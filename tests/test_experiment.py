import dataclasses
import errno
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from helpers import TINY, contents, full_disk, one_line, outcome, tiny_dataset, tiny_run, wait_for

from vae_core import checkpoints, experiment, models, training
from vae_core.checkpoints import HISTORY, RUN, STATE, WEIGHTS, load_run, read_state, write_run
from vae_core.experiment import main, published_run, run_name
from vae_core.loss import elbo
from vae_core.parameter_sets import PARAMETER_SETS, parameter_set
from vae_core.storage import held
from vae_core.training import Config, TrainingDiverged


@pytest.fixture
def epochs(monkeypatch):
    """The numbers of the epochs that were trained."""
    numbers, original = [], training.train_epoch

    def counted(*arguments):
        numbers.append(arguments[5])
        return original(*arguments)

    monkeypatch.setattr(training, "train_epoch", counted)
    return numbers


def stop_at(stopping, original=training.train_epoch):
    def stopped(*arguments):
        if arguments[5] == stopping:
            raise KeyboardInterrupt
        return original(*arguments)

    return stopped


@pytest.fixture
def interrupted(tmp_path, monkeypatch):
    """The folder of a run in `tmp_path` that was stopped after its first epoch."""
    with monkeypatch.context() as patch:
        patch.setattr(training, "train_epoch", stop_at(2))
        with pytest.raises(KeyboardInterrupt):
            tiny_run(tmp_path)
    (folder,) = (path for path in tmp_path.glob("tiny*/*") if path.is_dir())
    assert len(read_state(folder)[0].history) == 1
    return folder


def previous(folder, n=1):
    return folder.with_name(f"{folder.name}.previous-{n}")


# A run is trained once, and goes on after an interruption


def test_a_finished_run_is_loaded(tmp_path, trained, epochs, capsys):
    first = tiny_run(tmp_path)
    assert epochs == [1, 2] and outcome(first.folder) == outcome(trained.folder)
    before = contents(tmp_path)
    assert tiny_run(tmp_path).folder == first.folder and contents(tmp_path) == before
    (first.folder / STATE).write_bytes(b"left by a kill after run.json")
    assert tiny_run(tmp_path).folder == first.folder and contents(tmp_path) == before
    assert epochs == [1, 2]
    assert capsys.readouterr().err == ""
    assert outcome(tiny_run(tmp_path, seed=1).folder) != outcome(trained.folder)


@pytest.mark.parametrize("after", [0, 1, 2])
def test_ctrl_c_says_where_the_run_stands_and_loses_nothing(
    tmp_path, trained, monkeypatch, after, capsys
):
    with monkeypatch.context() as patch:
        patch.setattr(training, "train_epoch", stop_at(after + 1))
        patch.setattr(checkpoints, "write_run", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            tiny_run(tmp_path)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "the same call goes on" in said
    assert (f"epoch {after} is kept" if after else "no epoch is kept") in said
    told = []
    run = tiny_run(tmp_path, after_epoch=lambda config, rows: told.append(len(rows)))
    assert told == [1, 2][max(after - 1, 0) :]
    assert outcome(run.folder) == outcome(trained.folder)
    assert sorted(contents(run.folder)) == [HISTORY, RUN, WEIGHTS]


@pytest.mark.parametrize(("model", "stop"), [("conv", 2), ("conv", 5), ("conv", 7), ("fc", 5)])
def test_early_stopping_does_not_notice_an_interruption(tmp_path, monkeypatch, model, stop):
    """The best epoch is not the last one, and the waiting spans the interruption."""
    losses = [9.0, 7.0, 8.0, 5.0, 6.0, 5.5, 5.2, 4.9, 4.8]
    original = training.train_epoch

    def scripted(*arguments):
        return original(*arguments) | {"train_loss": losses[arguments[5] - 1]}

    options = {"max_epochs": 9, "patience": 3, "model": model, "dataset": tiny_dataset(8, 4)}
    monkeypatch.setattr(training, "train_epoch", scripted)
    whole = tiny_run(tmp_path / "whole", **options)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training, "train_epoch", stop_at(stop, scripted))
        tiny_run(tmp_path / "parts", **options)
    parts = tiny_run(tmp_path / "parts", **options)
    assert whole.summary["epochs"] == 7 and whole.summary["best_epoch"] == 4
    assert outcome(parts.folder) == outcome(whole.folder)
    assert parts.summary["test"] == whole.summary["test"]


def test_one_trains_and_the_others_wait(tmp_path, trained, epochs, capfd):
    place, said = tmp_path / trained.folder.parent.name / trained.folder.name, []
    with ThreadPoolExecutor(1) as pool, held(place):
        other = pool.submit(tiny_run, tmp_path)
        wait_for(lambda: said.append(capfd.readouterr().err) or "waiting for it" in "".join(said))
        shutil.copytree(trained.folder, place)
    assert other.result().folder == place and epochs == []


def test_a_run_that_goes_on_with_other_threads_says_so_and_keeps_its_precision(
    tmp_path, monkeypatch, capsys
):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(experiment, "choose_precision", lambda precision, device: "bfloat16")
        patch.setattr(training, "train_epoch", stop_at(2))
        tiny_run(tmp_path)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    monkeypatch.setattr(experiment, "choose_precision", lambda precision, device: "float32")
    run = tiny_run(tmp_path)
    assert run.record["precision"] == "bfloat16" and run.record["threads"] == [1, 7]
    assert "goes on with 7 threads on cpu instead of 1 on cpu" in capsys.readouterr().err


# A run is what was asked for, or it is not loaded; what makes way is kept


def cut(folder, patch):
    (path,) = folder.glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-100])


def newer_format(folder, patch):
    patch.setattr(checkpoints, "FORMAT", 3)


def other_code(folder, patch):
    code = experiment.training_code(models.ConvVAE) | {"the loss": "other"}
    patch.setattr(experiment, "training_code", lambda model: code)


@pytest.mark.parametrize(
    ("there", "change", "said"),
    [
        ("finished", cut, f"{WEIGHTS} cannot be loaded"),
        ("finished", lambda folder, patch: (folder / RUN).unlink(), f"its {RUN} is missing"),
        ("finished", newer_format, "format 2, this version reads 3"),
        ("finished", other_code, "the code of the loss has changed"),
        ("finished", None, "a new training was asked for"),
        ("interrupted", cut, f"{STATE} is damaged"),
        ("interrupted", newer_format, "format 2, this version reads 3"),
        ("interrupted", other_code, "the code of the loss has changed"),
        ("interrupted", None, "a new training was asked for"),
    ],
)
def test_what_is_not_the_run_asked_for_is_kept_aside(
    request, tmp_path, trained, monkeypatch, capsys, there, change, said
):
    folder = request.getfixturevalue(there)
    if change:
        change(folder, monkeypatch)
    (folder / "notes.txt").write_text("mine")
    before = contents(folder)
    capsys.readouterr()
    run = tiny_run(tmp_path, retrain=not change)
    assert outcome(run.folder) == outcome(trained.folder)
    assert contents(previous(folder)) == before
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line and previous(folder).name in line


def test_what_cannot_be_renamed_is_copied_aside_and_never_lost(finished, tmp_path, monkeypatch):
    (finished / "notes.txt").write_text("mine")
    before, rename = contents(finished), Path.rename

    def refusing(number):
        def of_an_overlay(path, target):
            if path == finished:
                raise OSError(number, "refused")
            return rename(path, target)

        monkeypatch.setattr(Path, "rename", of_an_overlay)

    refusing(errno.EACCES)
    with pytest.raises(PermissionError):
        tiny_run(tmp_path, retrain=True)
    assert contents(finished) == before and not previous(finished).exists()
    refusing(errno.EXDEV)
    for n in (1, 2, 3):
        tiny_run(tmp_path, retrain=True)
        assert previous(finished, n).exists()
    assert contents(previous(finished)) == before and not (finished / "notes.txt").exists()
    assert not [path for path in finished.parent.iterdir() if path.name.startswith(".aside")]


@pytest.mark.parametrize("there", ["finished", "interrupted"])
def test_a_run_in_the_folder_of_another_is_not_taken(
    request, tmp_path, trained, epochs, there, capsys
):
    folder = request.getfixturevalue(there)
    folder.rename(folder.with_name(folder.name.replace("seed0", "seed1")))
    capsys.readouterr()
    assert tiny_run(tmp_path, seed=1).config.seed == 1 and epochs == [1, 2]
    assert "(seed 0 instead of 1)" in capsys.readouterr().err


def test_other_images_of_one_name_are_another_run(finished, tmp_path, capsys):
    before = contents(finished)
    other = tiny_run(tmp_path, tiny_dataset(seed=1)).folder
    assert other != finished and contents(finished) == before
    shutil.rmtree(finished)
    other.rename(finished)
    tiny_run(tmp_path)
    assert "(other images in the data set)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({}, "conv-p1-seed0"),
        ({"seed": 3, "beta": 0.5}, "conv-p1-seed3-beta0.5"),
        ({"params": TINY, "max_epochs": 5}, "conv-tiny-16-0.001-2-seed0-max_epochs5"),
        ({"params": dataclasses.replace(TINY, name="p1")}, "conv-p1-16-0.001-2-seed0"),
        ({"reduction": "mean", "monitor": "validation"}, "conv-p1-seed0-validation-mean"),
    ],
)
def test_every_configuration_has_a_folder_of_its_own(options, name):
    assert run_name(Config(**{"model": "conv", "params": parameter_set("p1")} | options)) == name


def test_a_home_folder_is_understood_and_no_name_leads_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with pytest.raises(ValueError, match=r"the parameter set's name is '\.\./x'"):
        tiny_run("~/runs", params=dataclasses.replace(TINY, name="../x"))
    assert not contents(tmp_path)
    assert tiny_run("~/runs").folder.is_relative_to(tmp_path / "home" / "runs")


# Code that counts, and published runs


def test_another_model_in_the_same_file_changes_no_run():
    class Shifted(models.ConvVAE):
        def decode(self, z):
            return super().decode(z + 1)

    kinds = (models.ConvVAE, models.FCVAE, Shifted)
    codes = [experiment.training_code(kind) for kind in kinds]
    assert len({code["the model"] for code in codes}) == 3
    assert len({code["the loss"] for code in codes}) == 1


@pytest.fixture
def published(finished, tmp_path):
    """The finished run as a published one, and no trained run."""
    run = load_run(finished)
    about = {"version": "1.0", "weights": "float16", "rounding": 0.0, "code": run.record["code"]}
    record = {**run.record, "published": about}
    folder = tmp_path / "published" / "tiny" / finished.name
    write_run(dataclasses.replace(run, record=record, folder=folder), torch.float16)
    shutil.rmtree(finished.parent)
    return folder


def test_a_published_run_is_loaded_where_none_was_trained(
    published, tmp_path, epochs, monkeypatch, capsys
):
    assert tiny_run(tmp_path).folder == published
    assert capsys.readouterr().err == ""
    with monkeypatch.context() as patch:
        other_code(published, patch)
        assert tiny_run(tmp_path).folder == published and epochs == []
    (line,) = capsys.readouterr().err.splitlines()
    assert "version 1.0" in line and "the code of the loss has changed" in line
    assert tiny_run(tmp_path, tiny_dataset(seed=1)).folder != published
    before = contents(published)
    (tmp_path / tiny_dataset().folder / published.name).mkdir(parents=True)  # by make RETRAIN=1
    assert tiny_run(tmp_path).folder != published
    own = tiny_run(tmp_path, retrain=True)
    assert own.folder != published and contents(published) == before
    assert tiny_run(tmp_path).folder == own.folder


def test_published_runs_by_name(published, tmp_path):
    run = published_run("conv", TINY, "tiny", checkpoints=tmp_path, max_epochs=2)
    assert run.folder == published
    with pytest.raises(FileNotFoundError, match="no run fc-p1-seed0; it has conv-tiny") as error:
        published_run("fc", "p1", "tiny", checkpoints=tmp_path)
    one_line(error)


# A full disk takes nothing away


@pytest.mark.parametrize("number", range(7))
def test_any_write_may_fail(tmp_path, trained, monkeypatch, number):
    """Of seven files, two for each epoch and three for the run, one cannot be written."""
    written, before, original = [], {}, checkpoints.write

    def write(path, content):
        written.append(path)
        if len(written) == number + 1:
            before.update(contents(tmp_path))
            with full_disk(10):
                original(path, content)
        original(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "write", write)
        with pytest.raises(OSError, match=r"File too large.*untouched") as error:
            tiny_run(tmp_path)
    assert str(written[-1]) in one_line(error) and len(written) == number + 1
    assert contents(tmp_path) == before
    run = tiny_run(tmp_path)
    assert outcome(run.folder) == outcome(trained.folder)
    assert sorted(contents(run.folder)) == [HISTORY, RUN, WEIGHTS]


# Numbers that leave the ground


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_loss_that_is_no_number_loses_no_epoch(
    interrupted, tmp_path, trained, monkeypatch, value
):
    before, calls = contents(interrupted), []

    def broken(*arguments):
        calls.append(1)
        parts = elbo(*arguments)
        return parts if len(calls) != 2 else parts._replace(total=parts.total * value)

    with monkeypatch.context() as patch:
        patch.setattr(training, "elbo", broken)
        with pytest.raises(TrainingDiverged, match=r"the loss .* in epoch 2, at step 2") as error:
            tiny_run(tmp_path)
    said = "epoch 1 was still good: training loss {train_loss:.2f}, "
    assert said.format(**trained.history[0]) in one_line(error)
    assert contents(interrupted) == before
    assert outcome(tiny_run(tmp_path).folder) == outcome(trained.folder)


def test_a_validation_loss_that_is_no_number_is_told(tmp_path, monkeypatch):
    figures = {"loss": torch.nan, "reconstruction": torch.nan, "kl": 1.0}
    monkeypatch.setattr(training, "evaluate", lambda *_, **options: figures)
    with pytest.raises(TrainingDiverged, match=r"validation loss .* epoch 1, after its last"):
        tiny_run(tmp_path)
    assert not list(tmp_path.rglob(STATE))


@pytest.mark.parametrize("images", [1, 16, 17])
def test_every_image_is_learned_once_and_weighs_the_same(tmp_path, monkeypatch, images):
    losses = []

    def counted(decoded, *arguments):
        parts = elbo(decoded, *arguments)
        losses.append(parts.total.detach())
        return parts

    monkeypatch.setattr(training, "elbo", counted)
    run = tiny_run(tmp_path, tiny_dataset(images, 1), max_epochs=1)
    assert [len(part) for part in losses] == {1: [1], 16: [16], 17: [16, 1]}[images]
    assert run.history[0]["train_loss"] == pytest.approx(float(torch.cat(losses).mean()), rel=1e-6)


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
    assert program(tmp_path, "--model", "conv", "--patience", "9", "--beta", "2") == 0
    assert (tmp_path / "shapes-limit20" / "conv-p1-seed0-max_epochs1-patience9-beta2.0").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--model cnn", "unknown model 'cnn'"),
        ("--model fc --params p9", "unknown parameter set 'p9'"),
        ("--model fc --dataset no-such-set", "'no-such-set' is neither"),
        ("--model fc --limit 0", "limit is 0"),
        ("--model fc --limit abc", "'abc'"),
        ("--model fc --beta nan", "beta is nan"),
        ("--model fc --device abacus", "unknown device 'abacus'; this machine has "),
        ("--model fc --device cpu:x", "unknown device 'cpu:x'; this machine has "),
        ("--model fc --colour red", "--colour"),
        ("", "--model"),
    ],
)
def test_the_program_says_what_is_wrong_in_one_line(tmp_path, arguments, said, capsys):
    assert program(tmp_path, *arguments.split()) == 1
    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    assert line.startswith("error: ") and said in line and printed.out == ""
    assert not contents(tmp_path)


def test_the_program_says_where_a_training_left_the_ground(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(PARAMETER_SETS, "p1", dataclasses.replace(TINY, learning_rate=1.0))
    assert program(tmp_path, "--model", "fc", "--max-epochs", "9") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "infinite or not a number in epoch 1" in line and "no epoch was finished" in line
    assert not list(tmp_path.rglob(RUN)) and not list(tmp_path.rglob(STATE))
