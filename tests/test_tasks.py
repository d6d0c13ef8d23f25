"""The list of runs, their names, how long they take, and training them again."""

import shutil
from dataclasses import replace

import pytest
from helpers import contents, outcome

from vae_core.config import parameter_set
from vae_core.runs import train_or_load
from vae_core.runs.checkpoints import RUN, write_run
from vae_study import tasks
from vae_study.page_list import report_pages
from vae_study.settings import Settings
from vae_study.tasks import back_up_runs, estimate_duration, make_task, study_tasks

SMALL = Settings(limit=64, max_epochs=1, precision="float32", sets=("p1",), workers=1)
OWN_IMAGES = Settings(dataset="/a/images", seeds=(0, 1, 2))


def test_every_run_is_listed_once_and_the_first_seed_comes_first():
    tasks = study_tasks(OWN_IMAGES)
    first_seed = 3 * 3 + 2 + 2  # comparison with the linear VAE, faces, posterior collapse
    assert len(tasks) == len(set(tasks)) == first_seed + 2 * (3 * 2 + 1)
    assert {task.seed for task in tasks[:first_seed]} == {0}
    assert len({task.label for task in tasks}) == len(tasks)


def test_a_run_that_two_pages_need_is_listed_once():
    same_images = Settings(dataset="/a/images", faces="/a/images", sets=("p2",))
    balanced = [task for task in study_tasks(same_images) if task.options.get("beta", 1) == 1]
    assert len(balanced) == 3 + 1  # the fourth is the loss with reduction "mean"


def test_the_pages_about_faces_and_collapse_train_only_with_settings_of_their_own():
    assert len(study_tasks(Settings())) == 3 * 3
    assert len(study_tasks(Settings(sets=("p1",), seeds=(0, 1)))) == 3 + 2
    for changed in ({"max_epochs": 2}, {"retrain": True}, {"limit": 99}, {"dataset": "cifar10"}):
        assert len(study_tasks(Settings(**changed))) == 3 * 3 + 2 + 2


@pytest.mark.parametrize("settings", [Settings(), OWN_IMAGES, Settings(seed=3, seeds=(0, 1))])
def test_the_pages_show_the_listed_runs(settings):
    tasks = {task for page in report_pages(settings) for task in page.tasks}
    assert tasks == set(study_tasks(settings))


def test_epochs_and_share_of_the_images_depend_on_the_data_set():
    task = make_task(OWN_IMAGES, "conv", "p1", "/a/images", seed=0)
    assert (task.fraction, task.options["max_epochs"]) == (1.0, 100)
    assert make_task(OWN_IMAGES, "conv", "p1", "celeba", seed=0).fraction == 0.3
    assert make_task(OWN_IMAGES, "conv", "p1", "/my/celeba", seed=0).fraction == 1.0
    task = make_task(SMALL, "conv", "p1", "shapes", seed=0, max_epochs=7, fraction=0.5)
    assert (task.fraction, task.limit, task.options["max_epochs"]) == (0.5, 64, 7)


def train(task, checkpoints):
    return train_or_load(**task.arguments, checkpoints=checkpoints)


def test_training_again_keeps_what_exists(tmp_path, capsys):
    both = [make_task(SMALL, model, "plane", "shapes", seed=0) for model in ("ae", "conv")]
    folders = [task.folder(tmp_path) for task in both]
    for task in both:
        train(task, tmp_path)
    before = contents(tmp_path)

    back_up_runs(both, tmp_path)
    assert capsys.readouterr().out.count("is kept as") == 2
    assert [task.finished(tmp_path) for task in both] == [None, None]
    backups = [folder.with_name(f"{folder.name}.previous-1") for folder in folders]
    for folder, backup in zip(folders, backups, strict=True):
        moved = {f"{backup.parent.name}/{backup.name}/{name}" for name in contents(backup)}
        assert moved and not contents(folder)
    kept = contents(tmp_path)
    assert {name.replace(".previous-1", ""): kept[name] for name in kept} == before

    # Interrupted after the first of two runs, the same command begins again, and keeps that too.
    train(both[0], tmp_path)
    back_up_runs(both, tmp_path)
    assert folders[0].with_name(f"{folders[0].name}.previous-2").exists()
    assert not folders[1].with_name(f"{folders[1].name}.previous-2").exists()
    train(both[0], tmp_path)
    assert outcome(folders[0]) == outcome(backups[0])


@pytest.mark.parametrize("precision", ["auto", "float32"])
def test_a_published_run_is_trained_again_too(tmp_path, precision):
    settings = replace(SMALL, precision=precision)
    task = make_task(settings, "ae", "plane", "shapes", seed=0)
    run = train(replace(task, options=task.options | {"precision": "auto"}), tmp_path)
    published = tmp_path / "published" / run.dataset["name"] / run.folder.name
    provenance = run.provenance | {
        "published": {"version": "1", "code": run.provenance["code"]},
        "precision": "float32",
    }
    write_run(replace(run, provenance=provenance, folder=published))
    shutil.rmtree(run.folder)

    assert task.finished(tmp_path).folder == published
    back_up_runs([task], tmp_path)
    assert task.finished(tmp_path) is None
    train(task, tmp_path)
    assert task.finished(tmp_path).provenance["published"] is None
    assert (published / RUN).exists()


def test_the_estimate_counts_measured_epochs_of_every_run(monkeypatch):
    history = [{"seconds": 1e9}, {"seconds": 64.0}]  # after the first epoch, one second an image
    monkeypatch.setattr(tasks, "train", lambda *arguments, **options: (None, history))
    task = make_task(SMALL, "conv", "p1", "shapes", seed=0)
    assert estimate_duration([task], SMALL) == "64 s, 1 at a time"
    assert estimate_duration([task] * 4, replace(SMALL, workers=2)) == "2 min, 2 at a time"
    # With early stopping, as long as the published runs were trained; without it, to the end.
    stopped = make_task(SMALL, "conv", "p1", "shapes", seed=0, max_epochs=100)
    assert estimate_duration([stopped], SMALL) == "23 min, 1 at a time"
    unstopped = make_task(SMALL, "conv", "p1", "shapes", seed=0, max_epochs=100, patience=0)
    assert estimate_duration([unstopped], SMALL) == "107 min, 1 at a time"


@pytest.mark.parametrize("changed", [{"learning_rate": 1.0}, {"latent_dim": 999_999_999}])
def test_a_run_that_cannot_be_trained_does_not_stop_the_estimate(changed):
    params = replace(parameter_set("plane"), **changed)
    tasks = [make_task(SMALL, "fc", params, "shapes", seed=0)]
    tasks.append(make_task(SMALL, "fc", "plane", "shapes", seed=0))
    assert "at a time" in estimate_duration(tasks, SMALL)


def test_a_run_of_the_chosen_precision_is_trained_again_too(tmp_path):
    automatic = make_task(replace(SMALL, precision="auto"), "ae", "plane", "shapes", seed=0)
    run = train(automatic, tmp_path)
    settings = replace(SMALL, precision=run.provenance["precision"])
    task = make_task(settings, "ae", "plane", "shapes", seed=0)
    assert task.finished(tmp_path).folder == run.folder
    back_up_runs([task], tmp_path)
    assert task.finished(tmp_path) is None
    train(task, tmp_path)
    assert task.finished(tmp_path).folder == task.folder(tmp_path)
    assert automatic.finished(tmp_path).folder == run.folder
