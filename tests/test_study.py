import shutil
from functools import partial

import pytest
import torch
from helpers import contents, one_line, outcome, tiny_dataset, tiny_run

from vae_core import gallery, publish, study
from vae_core.checkpoints import load_run
from vae_core.data import load_dataset
from vae_core.experiment import published_run
from vae_core.files import PROJECT
from vae_core.results import read_results, write_results
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
    assert len(tasks(pictures, None, ["p2"], [0])) == 2 + 2
    # The collapse is shown beside the balanced run of p2, which p1 alone does not bring.
    assert {"model": "conv", "params": "p2", "dataset": pictures, "seed": 0} in [
        task.arguments for task in tasks(pictures, None, ["p1"], [0])
    ]


def test_results_are_those_of_the_runs(studied):
    rows = read_results(studied / "results.csv")
    assert len(rows) == 9
    row = next(row for row in rows if (row["dataset"], row["seed"]) == ("faces-limit64", 1))
    run = load_run(studied / "checkpoints" / "faces-limit64" / "conv-p2-seed1-max_epochs1")
    assert row["test_loss"] == pytest.approx(run.summary["test"]["loss"], abs=1e-4)


def test_a_second_study_trains_nothing(studied, capsys):
    before = contents(studied)
    assert run_study(studied) == 0
    assert "9 runs, 9 of them finished" in capsys.readouterr().out
    assert contents(studied) == before


def test_a_study_can_be_trained_anew(studied, tmp_path, capsys):
    shutil.copytree(studied / "checkpoints", tmp_path / "checkpoints")
    assert run_study(tmp_path, "--seeds", "0", "--retrain") == 0
    assert "6 runs, 0 of them finished" in capsys.readouterr().out
    runs = tmp_path / "checkpoints" / "shapes-limit64"
    anew = runs / "fc-p1-seed0-max_epochs1"
    assert outcome(anew) == outcome(runs / f"{anew.name}.previous")


def test_the_study_says_first_how_long_it_takes(studied, tmp_path, capsys):
    (tmp_path / "checkpoints").symlink_to(studied / "checkpoints")
    assert run_study(tmp_path, "--seeds", "0 2 0", "--faces", "celeba") == 0
    captured = capsys.readouterr()
    first, second, third = captured.out.splitlines()[:3]
    assert first == "7 runs, 5 of them finished"
    assert "take about" in second and "at most (1 epochs each)" in second
    assert third.startswith("[1/7] CVAE p1")
    assert "without faces: CelebA is not in" in captured.err


def test_the_estimate_counts_epochs_of_former_results_or_the_published_ones(monkeypatch):
    monkeypatch.setattr(study, "seconds_per_epoch", lambda task, precision: 2.0)
    waiting = [Task(model, "p1", tiny_dataset(), 0, {}) for model in ("conv", "fc")]
    assert estimate(waiting, [], 100, "auto") == (2 * (18 + 40), 400)
    like = {"model": "fc", "params": "p1", "dataset": "other", "beta": 1.0, "reduction": "sum"}
    before = [like | {"epochs": epochs} for epochs in (20, 30)]
    assert estimate(waiting, before, 22, "auto") == (2 * (18 + 22), 88)
    assert expected_epochs(waiting[1], before) == 25
    before += [like | {"dataset": "tiny", "epochs": 7}, like | {"reduction": "mean", "epochs": 6}]
    assert expected_epochs(waiting[1], before) == 7
    assert expected_epochs(Task("fc", "p1", tiny_dataset(), 0, {"reduction": "mean"}), before) == 6


def test_an_epoch_is_measured_on_few_pictures(monkeypatch):
    seen = []

    def trained(config, dataset, device):
        seen.append((len(dataset.train), len(dataset.validation), config.max_epochs))
        return {}, [{"seconds": 9.0}, {"seconds": 0.5}]

    monkeypatch.setattr(study, "train", trained)
    task = Task("fc", "p1", tiny_dataset(400, 40), 0, {})
    assert study.seconds_per_epoch(task, "float32", pictures=100) == 2.0
    assert seen == [(100, 10, 2)]


def test_a_study_goes_without_former_results(tmp_path, studied, monkeypatch, capsys):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "results.csv").write_text("damaged")
    monkeypatch.setattr(study, "PROJECT", tmp_path)
    (tmp_path / "checkpoints").symlink_to(studied / "checkpoints")
    assert run_study(tmp_path, "--seeds", "0 3") == 0
    assert "estimated without former results" in capsys.readouterr().err


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
def home(studied, tmp_path, monkeypatch):
    """A project of its own with a README and the runs of the small study."""
    shutil.copytree(studied / "checkpoints", tmp_path / "checkpoints")
    (tmp_path / "README.md").write_text(f"before\n{publish.BEGIN}\n{publish.END}\nafter\n")
    monkeypatch.setattr(publish, "README", tmp_path / "README.md")
    monkeypatch.setattr(publish, "FIGURES", tmp_path / "figures")
    small = partial(load_dataset, limit=64)
    monkeypatch.setattr(publish, "load_dataset", small)
    # The runs of the small study have fewer epochs than runs by their plain name.
    monkeypatch.setattr(publish, "published_run", lambda *names: load_run(_folder(*names)))
    return tmp_path


def _folder(model, params, dataset, seed, checkpoints):
    return checkpoints / dataset / f"{model}-{params}-seed{seed}-max_epochs1"


def run_publish(home, studied, *datasets):
    places = ["--results", str(studied), "--checkpoints", str(home / "checkpoints")]
    return publish.main([*places, "--datasets", *datasets])


def test_publishing_writes_weights_table_section_and_pictures(home, studied):
    assert run_publish(home, studied / "results.csv", "shapes", "faces") == 0
    rows = read_results(home / "figures" / "results.csv")
    rounded = [row for row in rows if row["rounding"] is not None]
    assert len(rounded) == 4 and {row["seed"] for row in rounded} == {0}
    runs = gallery.published_runs(home / "checkpoints")
    assert len(runs) == 4
    readme = (home / "README.md").read_text()
    assert publish.with_section(readme, publish.results_section(rows)) == readme
    kinds = ("curves", "interpolation", "samples")
    names = [f"{data}-limit64-{kind}.png" for data in ("faces", "shapes") for kind in kinds]
    assert sorted(path.name for path in (home / "figures").glob("*.png")) == names


@pytest.mark.parametrize("lacking", ["model", "data"])
def test_what_cannot_be_published_changes_nothing(home, studied, lacking, capsys):
    table, datasets = studied / "results.csv", ["shapes"]
    if lacking == "model":
        rows = [row for row in read_results(table) if row["model"] == "conv"]
        table, datasets = home / "conv.csv", ["shapes", "faces"]
        write_results(table, rows)
    before = contents(home)
    assert run_publish(home, table, *datasets) == 1
    error = capsys.readouterr().err
    assert ("one of the two models" if lacking == "model" else "faces-limit64") in error
    assert error.count("\n") == 1
    assert contents(home) == before


def test_the_gallery_shows_published_runs_only(studied, tmp_path, capsys):
    shutil.copytree(studied / "checkpoints", tmp_path / "checkpoints")
    shapes = tmp_path / "checkpoints" / "shapes-limit64"
    publish.publish_run(
        load_run(shapes / "fc-p1-seed0-max_epochs1"), load_dataset("shapes", limit=64)
    )
    shutil.copytree(shapes / "fc-p1-seed0-max_epochs1", shapes / "fc-p1-seed0-max_epochs1.previous")
    (shapes / "conv-p1-seed0-max_epochs1" / "run.json").write_text("damaged")
    options = [str(tmp_path / "gallery"), "--checkpoints", str(tmp_path / "checkpoints")]
    assert gallery.main(options) == 0
    names = [f"shapes-limit64-{kind}.png" for kind in ("curves", "interpolation", "samples")]
    assert sorted(path.name for path in (tmp_path / "gallery").iterdir()) == names
    assert capsys.readouterr().out.count("shapes-limit64-") == 3
    (shapes / "fc-p1-seed0-max_epochs1" / "weights.safetensors").write_bytes(b"damaged")
    assert gallery.main(options) == 1
    assert "git checkout" in capsys.readouterr().err


def test_a_gallery_without_published_runs_says_how_to_get_them(tmp_path, capsys):
    tiny_run(tmp_path)
    assert gallery.main([str(tmp_path / "gallery"), "--checkpoints", str(tmp_path)]) == 1
    assert "git checkout" in capsys.readouterr().err
    with pytest.raises(FileNotFoundError) as error:
        published_run("fc", "p1", "tiny", checkpoints=tmp_path)
    assert "no run fc-p1-seed0; it has conv-tiny" in one_line(error)


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
    published = [row for row in results if row["rounding"] is not None]
    assert len(published) == 7
    for row in published:
        names = (row["model"], row["params"], row["dataset"], row["seed"])
        run = published_run(*names, checkpoints=PROJECT / "checkpoints")
        assert row["test_loss"] == pytest.approx(run.summary["test"]["loss"], abs=1e-4)
        assert row["rounding"] == run.record["published"]["rounding"]
        assert row["epochs"] == len(run.history)
        assert abs(row["rounding"]) < publish.ROUNDING_LIMIT
