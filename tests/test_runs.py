import dataclasses
import errno
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from helpers import TINY, contents, full_disk, one_line, outcome, tiny_dataset, tiny_run, wait_for
from torch import nn

from vae_core import training
from vae_core.config import Config, parameter_set
from vae_core.loss import elbo
from vae_core.models import FCVAE, MODELS
from vae_core.runs import (
    checkpoints,
    finished_run,
    load_run,
    published_run,
    run_name,
    training_run,
)
from vae_core.runs.checkpoints import HISTORY, RUN, STATE, WEIGHTS, read_state, write_run
from vae_core.storage import locked
from vae_core.training import Trainer, TrainingDiverged

TRAIN_EPOCH = Trainer.train_epoch


CODE = {name: training_run.training_code(model) for name, model in MODELS.items()}


@pytest.fixture(autouse=True)
def _same_code(monkeypatch):
    """Keep the identity of the code, although these tests replace parts of the training."""
    code = CODE["conv"]
    monkeypatch.setattr(training_run, "training_code", lambda model: CODE.get(model.name, code))


@pytest.fixture
def epochs(monkeypatch):
    """The numbers of the epochs that were trained."""
    numbers = []

    def counted(trainer, epoch):
        numbers.append(epoch)
        return TRAIN_EPOCH(trainer, epoch)

    monkeypatch.setattr(Trainer, "train_epoch", counted)
    return numbers


def stop_at(stopping, train_epoch=TRAIN_EPOCH):
    """Return a `train_epoch` that Ctrl-C interrupts in an epoch."""

    def stopped(trainer, epoch):
        if epoch == stopping:
            raise KeyboardInterrupt
        return train_epoch(trainer, epoch)

    return stopped


@pytest.fixture
def interrupted(tmp_path, monkeypatch):
    """The folder of a run in `tmp_path` that was stopped after its first epoch."""
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_epoch", stop_at(2))
        with pytest.raises(KeyboardInterrupt):
            tiny_run(tmp_path)
    (folder,) = (path for path in tmp_path.glob("tiny*/*") if path.is_dir())
    assert len(read_state(folder).state.history) == 1
    return folder


def previous(folder, n=1):
    return folder.with_name(f"{folder.name}.previous-{n}")


# A run is trained once, and continues after an interruption


def test_a_finished_run_is_loaded(tmp_path, trained, epochs, capsys):
    first = tiny_run(tmp_path)
    assert epochs == [1, 2]
    assert outcome(first.folder) == outcome(trained.folder)
    before = contents(tmp_path)
    assert tiny_run(tmp_path).folder == first.folder
    assert contents(tmp_path) == before
    (first.folder / STATE).write_bytes(b"left by a kill after run.json")
    assert tiny_run(tmp_path).folder == first.folder
    assert contents(tmp_path) == before
    assert epochs == [1, 2]
    assert capsys.readouterr().err == ""
    assert outcome(tiny_run(tmp_path, seed=1).folder) != outcome(trained.folder)


@pytest.mark.parametrize("after", [0, 1, 2])
def test_ctrl_c_says_which_epochs_are_kept_and_loses_none(
    tmp_path, trained, monkeypatch, after, capsys
):
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_epoch", stop_at(after + 1))
        patch.setattr(training_run, "write_run", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            tiny_run(tmp_path)
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert (f"epoch {after} is kept" if after else "no epoch is kept") in message
    heard = []
    run = tiny_run(tmp_path, after_epoch=lambda config, history: heard.append(len(history)))
    assert heard == [1, 2][max(after - 1, 0) :]
    assert outcome(run.folder) == outcome(trained.folder)
    assert sorted(contents(run.folder)) == [HISTORY, RUN, WEIGHTS]


@pytest.mark.parametrize("stop", [2, 5, 7])
def test_early_stopping_does_not_notice_an_interruption(tmp_path, monkeypatch, stop):
    """The best epoch is not the last one, and the waiting spans the interruption."""
    losses = [9.0, 7.0, 8.0, 5.0, 6.0, 5.5, 5.2, 4.9, 4.8]

    def scripted(trainer, epoch):
        return TRAIN_EPOCH(trainer, epoch) | {"loss": losses[epoch - 1]}

    options = {"max_epochs": 9, "patience": 3, "dataset": tiny_dataset(8, 4)}
    monkeypatch.setattr(Trainer, "train_epoch", scripted)
    whole = tiny_run(tmp_path / "whole", **options)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "train_epoch", stop_at(stop, scripted))
        tiny_run(tmp_path / "parts", **options)
    parts = tiny_run(tmp_path / "parts", **options)
    assert whole.summary["epochs"] == 7
    assert whole.summary["best_epoch"] == 4
    assert outcome(parts.folder) == outcome(whole.folder)
    assert parts.summary["test"] == whole.summary["test"]


def test_one_process_trains_and_the_others_wait(tmp_path, trained, epochs, capfd):
    folder, messages = tmp_path / trained.folder.parent.name / trained.folder.name, []
    with ThreadPoolExecutor(1) as pool, locked(folder):
        other = pool.submit(tiny_run, tmp_path)
        wait_for(lambda: messages.append(capfd.readouterr().err) or "waiting" in "".join(messages))
        shutil.copytree(trained.folder, folder)
    assert other.result().folder == folder
    assert epochs == []


def test_a_run_that_continues_with_other_threads_says_so_and_keeps_its_precision(
    tmp_path, monkeypatch, capsys
):
    original = training_run.choose_precision

    def choosing(precision):
        config = Config("fc", TINY, precision=precision)
        return lambda *arguments: original(config, *arguments[1:])

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training_run, "choose_precision", choosing("bfloat16"))
        patch.setattr(Trainer, "train_epoch", stop_at(2))
        tiny_run(tmp_path, precision="auto")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    monkeypatch.setattr(training_run, "choose_precision", choosing("float32"))
    run = tiny_run(tmp_path, precision="auto")
    assert run.provenance["precision"] == "bfloat16"
    assert run.provenance["threads"] == [1, 7]
    message = capsys.readouterr().err
    assert "7 threads" in message
    assert "1 on cpu" in message


def test_a_run_of_automatic_precision_answers_for_the_precision_it_took(tmp_path, epochs):
    automatic = tiny_run(tmp_path, precision="auto")
    taken = automatic.provenance["precision"]
    other = {"float32": "bfloat16", "bfloat16": "float32"}[taken]
    assert tiny_run(tmp_path, precision=taken).folder == automatic.folder
    assert epochs == [1, 2]
    assert tiny_run(tmp_path, precision=other).folder != automatic.folder
    assert epochs == [1, 2, 1, 2]


def test_weights_that_share_memory_are_written_and_loaded(tmp_path, monkeypatch):
    class Shared(FCVAE):
        name = "shared"

        def __init__(self, latent_dim, image_shape):
            super().__init__(latent_dim, image_shape)
            self.decoder[2].bias = self.encoder[1].bias

    monkeypatch.setitem(MODELS, "shared", Shared)
    run = tiny_run(tmp_path, model="shared")
    assert run.model.decoder[2].bias is run.model.encoder[1].bias
    assert tiny_run(tmp_path, model="shared").summary == run.summary


# A run is what was requested, or it is not loaded; what makes way for it is kept


def cut_file(folder, patch):
    path = next(folder / name for name in (WEIGHTS, STATE) if (folder / name).exists())
    path.write_bytes(path.read_bytes()[:-100])


def remove_run_file(folder, patch):
    (folder / RUN).unlink()


def newer_format(folder, patch):
    patch.setattr(checkpoints, "FORMAT", 3)


def other_code(folder, patch):
    code = CODE["conv"] | {"the loss": "other"}
    patch.setattr(training_run, "training_code", lambda model: code)


@pytest.mark.parametrize(
    ("present", "change", "message"),
    [
        ("finished", cut_file, WEIGHTS),
        ("finished", remove_run_file, f"its {RUN} is missing"),
        ("finished", newer_format, "format 2"),
        ("finished", other_code, "the code of the loss has changed"),
        ("finished", None, "a new training"),
        ("interrupted", cut_file, f"{STATE} is damaged"),
        ("interrupted", newer_format, "format 2"),
        ("interrupted", other_code, "the code of the loss has changed"),
        ("interrupted", None, "a new training"),
    ],
)
def test_what_is_not_the_requested_run_is_kept_as_a_backup(
    request, tmp_path, trained, monkeypatch, capsys, present, change, message
):
    folder = request.getfixturevalue(present)
    if change:
        change(folder, monkeypatch)
    (folder / "notes.txt").write_text("mine")
    before = contents(folder)
    capsys.readouterr()
    run = tiny_run(tmp_path, retrain=not change)
    assert outcome(run.folder) == outcome(trained.folder)
    assert contents(previous(folder)) == before
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert previous(folder).name in line


@pytest.mark.parametrize(
    "edit",
    [
        lambda content: content.pop("code"),
        lambda content: content.pop("versions"),
        lambda content: content.update(published=True),
        lambda content: content.update(dataset={}),
        lambda content: content.update(config=[]),
        lambda content: content.pop("precision"),
    ],
    ids=["code", "versions", "published", "dataset", "config", "precision"],
)
def test_a_wrong_run_file_is_replaced_or_loaded_without_a_traceback(
    finished, tmp_path, trained, capsys, edit
):
    content = json.loads((finished / RUN).read_text())
    del content["checksum"]
    edit(content)
    (finished / RUN).write_text(json.dumps(content))
    run = tiny_run(tmp_path)
    assert outcome(run.folder) == outcome(trained.folder)
    assert capsys.readouterr().err.count("\n") <= 1


def test_a_folder_that_cannot_be_renamed_is_copied_and_never_lost(finished, tmp_path, monkeypatch):
    (finished / "notes.txt").write_text("mine")
    before, rename = contents(finished), Path.rename

    def refuse(number):
        def rename_on_overlay(path, target):
            if path == finished:
                raise OSError(number, "refused")
            return rename(path, target)

        monkeypatch.setattr(Path, "rename", rename_on_overlay)

    refuse(errno.EACCES)
    with pytest.raises(PermissionError):
        tiny_run(tmp_path, retrain=True)
    assert contents(finished) == before
    assert not previous(finished).exists()
    refuse(errno.EXDEV)
    for n in (1, 2):
        tiny_run(tmp_path, retrain=True)
        assert previous(finished, n).exists()
    assert contents(previous(finished)) == before
    assert not (finished / "notes.txt").exists()
    assert not [path for path in finished.parent.iterdir() if path.name.startswith(".backup")]


@pytest.mark.parametrize("present", ["finished", "interrupted"])
def test_a_run_in_the_folder_of_another_is_not_taken(
    request, tmp_path, trained, epochs, present, capsys
):
    folder = request.getfixturevalue(present)
    folder.rename(folder.with_name(folder.name.replace("seed0", "seed1")))
    capsys.readouterr()
    epochs.clear()
    assert tiny_run(tmp_path, seed=1).config.seed == 1
    assert epochs == [1, 2]
    assert "seed 0 instead of 1" in capsys.readouterr().err


def test_other_images_of_the_same_name_are_another_run(finished, tmp_path, capsys):
    before = contents(finished)
    other = tiny_run(tmp_path, tiny_dataset(seed=1)).folder
    assert other != finished
    assert contents(finished) == before
    shutil.rmtree(finished)
    other.rename(finished)
    tiny_run(tmp_path)
    assert "other images" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({}, "conv-p1-seed0"),
        ({"seed": 3, "beta": 0.5}, "conv-p1-seed3-beta0.5"),
        ({"params": TINY, "max_epochs": 5}, "conv-tiny-16-0.001-2-seed0-max_epochs5"),
        ({"params": dataclasses.replace(TINY, name="p1")}, "conv-p1-16-0.001-2-seed0"),
        ({"reduction": "mean", "monitor": "validation"}, "conv-p1-seed0-validation-mean"),
        ({"decoder_variance": "learned", "flip": True}, "conv-p1-seed0-learned-flip"),
    ],
)
def test_every_configuration_has_a_folder_of_its_own(options, name):
    assert run_name(Config(**{"model": "conv", "params": parameter_set("p1")} | options)) == name


def test_a_home_folder_is_understood_and_no_name_leads_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with pytest.raises(ValueError, match=r"'\.\./x'") as error:
        tiny_run("~/runs", params=dataclasses.replace(TINY, name="../x"))
    one_line(error)
    monkeypatch.setitem(MODELS, "a/b", FCVAE)
    with pytest.raises(ValueError, match="'a/b'"):
        tiny_run("~/runs", model="a/b")
    assert not contents(tmp_path)
    assert tiny_run("~/runs").folder.is_relative_to(tmp_path / "home" / "runs")


# Published runs


@pytest.fixture
def published(finished, tmp_path):
    """The finished run as a published one, and no trained run."""
    run = load_run(finished)
    facts = {"version": "1.0", "weights": "float16", "rounding": 0.0}
    facts["code"] = run.provenance["code"]
    provenance = {**run.provenance, "published": facts}
    folder = tmp_path / "published" / "tiny" / training_run.published_name(run.config)
    write_run(dataclasses.replace(run, provenance=provenance, folder=folder), torch.float16)
    shutil.rmtree(finished.parent)
    return folder


def test_a_published_run_is_loaded_where_none_was_trained(
    published, tmp_path, epochs, monkeypatch, capsys
):
    assert tiny_run(tmp_path).folder == published
    assert capsys.readouterr().err == ""
    with monkeypatch.context() as patch:
        other_code(published, patch)
        assert tiny_run(tmp_path).folder == published
        assert epochs == []
    (line,) = capsys.readouterr().err.splitlines()
    assert "version 1.0" in line
    assert "the code of the loss has changed" in line
    assert tiny_run(tmp_path, tiny_dataset(seed=1)).folder != published
    before = contents(published)
    name = run_name(load_run(published).config)
    (tmp_path / tiny_dataset().folder / name).mkdir(parents=True)  # by make RETRAIN=1
    assert tiny_run(tmp_path).folder != published
    trained_again = tiny_run(tmp_path, retrain=True)
    assert trained_again.folder != published
    assert contents(published) == before
    assert tiny_run(tmp_path).folder == trained_again.folder


def test_published_runs_are_found_by_name(published, tmp_path):
    options = {"max_epochs": 2, "precision": "float32"}
    run = published_run("conv", TINY, "tiny", checkpoints=tmp_path, **options)
    assert run.folder == published
    with pytest.raises(FileNotFoundError, match=r"fc-p1-seed0.*conv-tiny") as error:
        published_run("fc", "p1", "tiny", checkpoints=tmp_path)
    one_line(error)


def test_a_run_that_does_not_exist_is_none(tmp_path):
    assert finished_run("conv", TINY, tiny_dataset(), checkpoints=tmp_path) is None
    with pytest.raises(FileNotFoundError) as error:
        load_run(tmp_path)
    one_line(error)


# A full disk takes nothing away


@pytest.mark.parametrize("name", [STATE, HISTORY, WEIGHTS, RUN])
def test_any_file_may_fail_to_be_written(tmp_path, trained, monkeypatch, name):
    write, before = checkpoints.atomic_write, {}

    def fail_on_name(path, content):
        if path.name == name:
            before.update(contents(tmp_path))
            with full_disk(10):
                write(path, content)
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "atomic_write", fail_on_name)
        with pytest.raises(OSError, match=f"{name}.*untouched") as error:
            tiny_run(tmp_path)
    one_line(error)
    assert contents(tmp_path) == before
    run = tiny_run(tmp_path)
    assert outcome(run.folder) == outcome(trained.folder)
    assert sorted(contents(run.folder)) == [HISTORY, RUN, WEIGHTS]


def test_a_history_that_a_spreadsheet_saved_is_read(finished):
    expected = load_run(finished).history
    lines = (finished / HISTORY).read_text().replace(",", ";").splitlines()
    (finished / HISTORY).write_bytes(("\ufeff" + "\r\n".join(lines) + "\r\n").encode())
    assert load_run(finished).history == expected


# Losses that are not numbers


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_loss_that_is_not_finite_loses_no_epoch(
    interrupted, tmp_path, trained, monkeypatch, value
):
    before, calls = contents(interrupted), []

    def broken(*arguments):
        calls.append(1)
        parts = elbo(*arguments)
        return parts if len(calls) != 2 else parts._replace(total=parts.total * value)

    with monkeypatch.context() as patch:
        patch.setattr(training, "elbo", broken)
        with pytest.raises(TrainingDiverged, match=r"epoch 2, at step 2") as error:
            tiny_run(tmp_path)
    assert f"{trained.history[0]['train_loss']:.2f}" in one_line(error)
    assert contents(interrupted) == before
    assert outcome(tiny_run(tmp_path).folder) == outcome(trained.folder)


def test_a_validation_loss_that_is_not_finite_is_an_error(tmp_path, monkeypatch):
    losses = {"loss": torch.nan, "reconstruction": torch.nan, "kl": 1.0}
    monkeypatch.setattr(training, "evaluate", lambda *arguments, **options: losses)
    with pytest.raises(TrainingDiverged, match=r"validation loss .* epoch 1"):
        tiny_run(tmp_path)
    assert not list(tmp_path.rglob(STATE))


@pytest.mark.parametrize(("images", "batches"), [(1, [1]), (16, [16]), (17, [16, 1])])
def test_every_image_is_trained_on_once_and_weighs_the_same(tmp_path, monkeypatch, images, batches):
    losses = []

    def recorded(decoded, *arguments):
        parts = elbo(decoded, *arguments)
        losses.append(parts.total.detach())
        return parts

    monkeypatch.setattr(training, "elbo", recorded)
    run = tiny_run(tmp_path, tiny_dataset(images, 1), max_epochs=1)
    assert [len(batch) for batch in losses] == batches
    assert run.history[0]["train_loss"] == pytest.approx(float(torch.cat(losses).mean()), rel=1e-6)


def test_a_model_with_batch_statistics_continues_to_the_same_result(tmp_path, monkeypatch):
    class Normalized(FCVAE):
        name = "normalized"

        def __init__(self, latent_dim, image_shape):
            super().__init__(latent_dim, image_shape)
            self.encoder.append(nn.BatchNorm1d(256))
            self.encoder.append(nn.Dropout(0.2))

    monkeypatch.setitem(MODELS, "normalized", Normalized)
    whole = tiny_run(tmp_path / "whole", model="normalized")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "train_epoch", stop_at(2))
        tiny_run(tmp_path / "parts", model="normalized")
    parts = tiny_run(tmp_path / "parts", model="normalized")
    assert outcome(parts.folder) == outcome(whole.folder)
    assert parts.summary["test"] == whole.summary["test"]
