import shutil

import pytest
import torch
from helpers import contents, one_line, outcome, tiny_dataset, tiny_run

from vae_core import gallery, publish, study
from vae_core.checkpoints import load_run
from vae_core.data import load_dataset
from vae_core.experiment import published_run, train_or_load
from vae_core.files import PROJECT
from vae_core.results import read_results
from vae_core.study import Task, estimate, expected_epochs, tasks

SMALL = ["--limit", "64", "--max-epochs", "1", "--sets", "p1", "--faces-fraction", "1"]


def run_study(folder, *options):
    places = [
        "--results",
        str(folder / "results.csv"),
        "--checkpoints",
        str(folder / "checkpoints"),
    ]
    built_in = ["--dataset", "shapes", "--faces", "faces", "--seeds", "0 1"]
    return study.main([*built_in, *SMALL, *places, *options])


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    """The folder of a small study."""
    folder = tmp_path_factory.mktemp("study")
    assert run_study(folder) == 0
    return folder


def test_the_study_trains_every_set_model_and_seed_and_the_unbalanced_losses_once():
    pictures, faces = tiny_dataset(), tiny_dataset(seed=1)
    listed = tasks(pictures, faces, ["p1", "p2", "p3"], [0, 1, 2])
    assert len(listed) == len({str(task) + str(id(task.dataset)) for task in listed}) == 18 + 3 + 2
    assert all(task.seed == 0 for task in listed[:9])
    assert [task.options for task in listed if task.options] == list(study.UNBALANCED)
    assert len(tasks(pictures, None, ["p1"], [0])) == 2 + 2


def test_results_are_those_of_the_runs(studied):
    rows = read_results(studied / "results.csv")
    assert len(rows) == 8
    row = next(row for row in rows if (row["dataset"], row["seed"]) == ("faces-limit64", 1))
    run = load_run(studied / "checkpoints" / "faces-limit64" / "conv-p2-seed1-max_epochs1")
    assert row["test_loss"] == pytest.approx(run.summary["test"]["loss"], abs=1e-4)


def test_a_second_study_trains_nothing(studied, capsys):
    before = contents(studied)
    assert run_study(studied) == 0
    assert "8 runs, 8 of them finished" in capsys.readouterr().out
    assert contents(studied) == before


def test_a_study_can_be_trained_anew(studied, tmp_path, capsys):
    shutil.copytree(studied / "checkpoints", tmp_path / "checkpoints")
    assert run_study(tmp_path, "--seeds", "0", "--retrain") == 0
    assert "5 runs, 0 of them finished" in capsys.readouterr().out
    runs = tmp_path / "checkpoints" / "shapes-limit64"
    anew = runs / "fc-p1-seed0-max_epochs1"
    assert outcome(anew) == outcome(runs / f"{anew.name}.previous")


def test_the_study_says_first_how_long_it_takes(studied, tmp_path, capsys):
    (tmp_path / "checkpoints").symlink_to(studied / "checkpoints")
    assert run_study(tmp_path, "--seeds", "0 2", "--faces", "celeba") == 0
    captured = capsys.readouterr()
    first, second, third = captured.out.splitlines()[:3]
    assert first == "6 runs, 4 of them finished"
    assert "take about" in second and "at most (1 epochs each)" in second
    assert third.startswith("[1/6] CVAE p1")
    assert "without faces: CelebA is not in" in captured.err


def test_the_estimate_counts_epochs_of_former_results_or_the_published_ones(monkeypatch):
    monkeypatch.setattr(study, "seconds_per_epoch", lambda task, precision: 2.0)
    waiting = [Task(model, "p1", tiny_dataset(), 0, {}) for model in ("conv", "fc")]
    assert estimate(waiting, [], 100, "auto") == (2 * (18 + 40), 400)
    before = [{"model": "fc", "params": "p1", "epochs": epochs} for epochs in (20, 30)]
    assert estimate(waiting, before, 22, "auto") == (2 * (18 + 22), 88)
    assert expected_epochs(waiting[1], before) == 25


def test_an_epoch_is_measured_on_few_pictures():
    task = Task("fc", "p1", tiny_dataset(400), 0, {})
    few = study.seconds_per_epoch(task, "float32", pictures=100)
    assert 0 < few < 60


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--seeds", "one"], "seeds are 'one'"),
        (["--seeds", ""], "nothing to train"),
        (["--sets", "p9"], "p9"),
        (["--dataset", "/nowhere"], "/nowhere"),
        (["--max-epochs", "0"], "max_epochs is 0"),
    ],
)
def test_what_the_study_cannot_do_is_one_line(tmp_path, capsys, options, said):
    assert run_study(tmp_path, *options) == 1
    error = capsys.readouterr().err
    assert said in error and error.startswith("error: ") and error.count("\n") == 1


def test_a_published_run_loads_within_rounding_whatever_the_code(tmp_path, monkeypatch):
    dataset = tiny_dataset()
    trained = tiny_run(tmp_path, dataset)
    rounded = publish.publish_run(trained, dataset)
    assert rounded.summary == trained.summary and rounded.history == trained.history
    assert abs(rounded.record["published"]["rounding"]) < 0.05
    files = contents(trained.folder)
    assert publish.publish_run(rounded, dataset).record == rounded.record
    assert contents(trained.folder) == files
    for name, weight in trained.model.state_dict().items():
        assert torch.equal(rounded.model.state_dict()[name], weight.half().float())
    monkeypatch.setattr("vae_core.experiment.training_code", lambda: "other code")
    assert tiny_run(tmp_path, dataset).record == rounded.record


def test_rounding_that_matters_and_foreign_data_are_refused(tmp_path, monkeypatch):
    dataset = tiny_dataset()
    trained = tiny_run(tmp_path, dataset)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="has not learned"):
        publish.publish_run(trained, tiny_dataset(seed=1))
    monkeypatch.setattr(publish, "ROUNDING_LIMIT", 0.0)
    with pytest.raises(ValueError, match="publish float32"):
        publish.publish_run(trained, dataset)
    assert contents(tmp_path) == before


@pytest.fixture
def published(tmp_path):
    """A folder of checkpoints with two published runs and one that is not."""
    data = load_dataset("shapes", limit=64)
    for model in ("conv", "fc"):
        run = train_or_load(model, "p1", data, max_epochs=1, checkpoints=tmp_path / "runs")
        publish.publish_run(run, data)
    tiny_run(tmp_path / "runs")
    return tmp_path / "runs"


def test_the_gallery_shows_published_runs_only(published, tmp_path, capsys):
    assert gallery.main([str(tmp_path / "gallery"), "--checkpoints", str(published)]) == 0
    names = [f"shapes-limit64-{kind}.png" for kind in ("curves", "interpolation", "samples")]
    assert sorted(path.name for path in (tmp_path / "gallery").iterdir()) == names
    assert capsys.readouterr().out.count("shapes-limit64-") == 3


def test_a_gallery_without_published_runs_says_how_to_get_them(tmp_path, capsys):
    tiny_run(tmp_path)
    assert gallery.main([str(tmp_path / "gallery"), "--checkpoints", str(tmp_path)]) == 1
    assert "git checkout" in capsys.readouterr().err
    with pytest.raises(FileNotFoundError) as error:
        published_run("fc", "p1", "cifar10", checkpoints=tmp_path)
    assert "cifar10" in one_line(error)


def test_marks_in_the_readme_enclose_the_section():
    readme = f"before\n{publish.BEGIN}\n\nold\n\n{publish.END}\nafter\n"
    once = publish.with_section(readme, "new")
    assert "old" not in once and once.startswith("before\n") and once.endswith("\nafter\n")
    assert publish.with_section(once, "new") == once
    with pytest.raises(ValueError, match="marks"):
        publish.with_section("no marks", "new")


def test_the_readme_shows_the_results_of_the_table():
    """After a change of figures/results.csv or of its words: make publish."""
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    results = read_results(PROJECT / "figures" / "results.csv")
    assert publish.with_section(readme, publish.results_section(results)) == readme


def test_the_published_runs_are_those_of_the_table():
    results = read_results(PROJECT / "figures" / "results.csv")
    runs = gallery.published_runs(PROJECT / "checkpoints")
    assert len(runs) == 7
    for run in runs:
        config = run.config
        (row,) = (
            row
            for row in publish.comparison(results, config["dataset"])
            if (row["model"], row["params"], row["seed"])
            == (config["model"], config["params"]["name"], config["seed"])
        )
        assert row["test_loss"] == pytest.approx(run.summary["test"]["loss"], abs=1e-4)
        assert row["rounding"] == run.record["published"]["rounding"]
        assert row["epochs"] == len(run.history)
        assert abs(row["rounding"]) < publish.ROUNDING_LIMIT
