"""Settings, the list of runs, training anew, publishing, and what the commands say."""

import re
import shutil
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import jupytext
import pytest
from helpers import contents, one_line, outcome
from test_make import VICIOUS

from study import __main__ as commands
from study import answer, engine, publish, runs
from study.runs import Settings
from vae_core.checkpoints import load_run
from vae_core.experiment import train_or_load
from vae_core.storage import PROJECT
from vae_core.tables import read_results, result, write_results

SMALL = {"max_epochs": 1, "limit": 64, "precision": "float32", "sets": ("p1",), "workers": 1}

MARKS = (publish.BEGIN, publish.END)


def in_turn(tasks, settings, console=None):
    """Stand in for the engine."""
    done = []
    for task in tasks:
        asked = task.arguments
        run = train_or_load(**asked, checkpoints=settings.checkpoints)
        done.append(engine.Outcome(task, result(run, asked["dataset"])))
    return done


@pytest.mark.parametrize("name", VICIOUS)
def test_a_vicious_name_is_a_path_and_nothing_else(name):
    given = Settings.from_environment({"VAE_DATASET": name, "VAE_REPORT": name})
    assert given.dataset == str(Path.cwd() / name) and given.report == Path.cwd() / name
    assert given.faces == "faces"
    listed = runs.study_tasks(given)
    assert {task.fraction for task in listed} == {1.0}
    assert {task.options["max_epochs"] for task in listed if task.dataset == given.dataset} == {100}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"dataset": "shapes", "seed": 0, "seeds": (0,), "retrain": False, "size": 32}),
        ({"SETS": "p1 p1"}, {"sets": ("p1",)}),
        ({"SETS": "p3, p1"}, {"sets": ("p3", "p1")}),
        ({"SEEDS": "0 00"}, {"seeds": (0,), "seed": 0}),
        ({"SEEDS": "4,1"}, {"seeds": (4, 1), "seed": 4}),
        ({"SEED": "3"}, {"seeds": (3,), "seed": 3}),
        ({"SEED": "3", "SEEDS": "0 1"}, {"seeds": (0, 1), "seed": 3}),
        ({"RETRAIN": "no"}, {"retrain": False}),
        ({"RETRAIN": "FALSE"}, {"retrain": False}),
        ({"RETRAIN": ""}, {"retrain": False}),
        ({"RETRAIN": "1"}, {"retrain": True}),
        ({"DATASET": "celeba", "LIMIT": " 64 "}, {"dataset": "celeba", "limit": 64}),
        ({"DATASET": "./shapes"}, {"dataset": str(Path.cwd() / "shapes")}),
        ({"REPORT": "~/x"}, {"report": Path.home() / "x"}),
    ],
)
def test_settings(given, expected):
    found = Settings.from_environment({f"VAE_{name}": text for name, text in given.items()})
    assert {name: getattr(found, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("DATASET", "", "give a value, or leave"),
        ("FACES", " ", "give a value, or leave"),
        ("REPORT", "", "give a value, or leave"),
        ("DATASET", "caf\udce9", "not UTF-8"),
        ("SETS", "p9", "p1, p2, p3"),
        ("SETS", ",", "unknown parameter set ''"),
        ("SEEDS", "", "give a value, or leave"),
        ("SEEDS", "one", "whole number of at least 0"),
        ("SEED", "-1", "whole number of at least 0"),
        ("SEED", "9" * 30, "whole number of at least 0"),
        ("LIMIT", "abc", "whole number of at least 1"),
        ("MAX_EPOCHS", "0", "whole number of at least 1"),
        ("WORKERS", "0", "whole number of at least 1"),
        ("PRECISION", "float8", "auto, float32, bfloat16"),
        ("RETRAIN", "perhaps", "1, yes, true, 0, no, false"),
    ],
)
def test_a_setting_without_sense_is_one_line(name, text, said, monkeypatch, capsys):
    monkeypatch.setenv(f"VAE_{name}", text)
    with pytest.raises(ValueError, match=f"^{name} is ") as error:
        Settings.from_environment()
    assert said in one_line(error) and commands.main("report") == 1
    assert capsys.readouterr().err == f"error: {error.value}\n"


def test_every_run_is_listed_once_and_the_first_seed_comes_first():
    asked = Settings(dataset="/a/images", seeds=(0, 1, 2))
    listed = runs.study_tasks(asked)
    assert len(listed) == len(set(listed)) == 3 * (6 + 1) + 2 + 3 + 1
    assert all(task.seed == 0 for task in listed[: 6 + 1 + 2 + 3 + 1])
    assert len({task.label for task in listed}) == len(listed)
    # 04 shows faces of one seed, and the balanced loss of 05 is p2's whatever SETS are.
    assert len(runs.study_tasks(replace(asked, sets=("p1",), seeds=(0,)))) == 3 + 2 + 3
    same = Settings(dataset="/a/images", faces="/a/images", sets=("p2",))
    assert len([task for task in runs.study_tasks(same) if task.options.get("beta", 1) == 1]) == 4
    of_faces = runs.study_tasks(Settings(faces="celeba", dataset="/my/celeba"))
    assert {task.dataset for task in of_faces if task.fraction == 0.3} == {"celeba"}


def test_the_stored_answers_need_no_training():
    assert len(runs.study_tasks(Settings())) == 6 + 3
    for settings in (Settings(max_epochs=2), Settings(retrain=True), Settings(limit=99)):
        assert len(runs.study_tasks(settings)) == 6 + 3 + 2 + 2


@pytest.mark.parametrize("page", runs.pages(Settings()), ids=lambda page: page.name)
def test_each_notebook_has_the_parameters_that_its_page_passes(page):
    cells = jupytext.read(page.notebook).cells
    (cell,) = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    assert page.parameters.keys() <= set(re.findall(r"^(\w+) = ", cell.source, re.MULTILINE))


GRIDS = (
    "model=conv,local max_epochs=1,4",
    "model=fc max_epochs=3,12",
    "model=conv-fc,fc-conv max_epochs=1",
    "model=conv,local,conv-fc,fc-conv max_epochs=1 permuted=1",
    "model=fc max_epochs=3 permuted=1",
    "model=conv,fc,local max_epochs=1 fraction=0.5",
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A small study and a small answer: the settings, and their tables."""
    folder = tmp_path_factory.mktemp("study")
    settings = Settings(**SMALL, checkpoints=folder / "checkpoints", seeds=(0, 1))
    for name, tasks in (
        ("results.csv", runs.study_tasks(settings)),
        ("answer.csv", answer.tasks(settings, GRIDS)),
    ):
        write_results(folder / name, [done.row for done in in_turn(tasks, settings)])
    return replace(settings, results=folder / "results.csv")


@pytest.fixture
def settings(trained, tmp_path, monkeypatch):
    """The small study in a folder of the test's own."""
    monkeypatch.setattr(publish, "BOUNDED", 2)
    shutil.copytree(trained.checkpoints, tmp_path / "checkpoints")
    return replace(trained, checkpoints=tmp_path / "checkpoints", report=tmp_path / "report")


def test_retraining_begins_once_and_an_interrupted_one_goes_on(settings, capsys):
    tasks = runs.study_tasks(settings)[:3]
    there, before = settings.checkpoints, contents(settings.checkpoints)
    runs.begin_anew(tasks, there)
    assert [task.finished(there) for task in tasks] == [None] * 3
    in_turn(tasks[:1], settings)
    anew = contents(tasks[0].folder(there))
    runs.end_anew(there)
    runs.begin_anew(tasks, there)  # the same call after an interruption
    assert "going on" in capsys.readouterr().out
    assert contents(tasks[0].folder(there)) == anew
    assert len(list(there.glob("*/*.previous-*"))) == 3
    in_turn(tasks, settings)
    runs.end_anew(there)
    for task in tasks:
        folder = task.folder(there)
        assert outcome(folder) == outcome(folder.with_name(f"{folder.name}.previous-1"))
    runs.begin_anew(tasks[:1], there)
    assert tasks[0].folder(there).with_name(f"{tasks[0].folder(there).name}.previous-2").exists()
    after = contents(there)
    for name, content in before.items():  # nothing is lost
        run, _, file = name.rpartition("/")
        assert content in (after.get(name), after.get(f"{run}.previous-1/{file}"))


def test_what_is_published_is_trained_anew_too(settings):
    (task,) = (one for one in runs.study_tasks(settings) if (one.model, one.seed) == ("fc", 0))
    there, table = settings.checkpoints, read_results(settings.results)
    publish._publish_run(task, settings, there / "published", table)
    shutil.rmtree(task.folder(there))
    assert task.finished(there).record["published"]
    runs.begin_anew([task], there)
    assert task.finished(there) is None
    in_turn([task], settings)
    assert not task.finished(there).record["published"]


def test_the_estimate_counts_measured_epochs_of_every_run(monkeypatch, settings):
    task = runs.study_tasks(settings)[2]
    history = [{"seconds": 1e9}, {"seconds": 64.0}]  # a second an image, once it is warm
    monkeypatch.setattr(runs, "train", lambda *_: (None, history))
    assert runs.estimate([task], settings) == "64 s, 1 at a time"
    two = replace(settings, workers=2)
    assert runs.estimate([task] * 4, two) == "2 min, 2 at a time"
    # Where the study's rule stops the CVAE with p1, on average; without the rule it goes on.
    conv = runs.study_tasks(settings)[0]
    long = replace(conv, options=conv.options | {"max_epochs": 100})
    assert runs.estimate([long], settings) == "23 min, 1 at a time"
    unruled = replace(long, options=long.options | {"patience": 0})
    assert runs.estimate([unruled], settings) == "107 min, 1 at a time"


@pytest.fixture
def home(settings, trained, monkeypatch):
    """A project with a README, the small study, and the answer that was published before."""
    folder = settings.checkpoints.parent
    (folder / "figures").mkdir()
    shutil.copy(trained.results.with_name("answer.csv"), folder / "figures")
    marks = [mark.format(name) for name in ("answer", "results") for mark in MARKS]
    (folder / "README.md").write_text("\n".join(["before", *marks, "after", ""]))
    monkeypatch.setattr(publish, "README", folder / "README.md")
    monkeypatch.setattr(publish, "FIGURES", folder / "figures")
    return folder


def test_publishing_writes_weights_table_section_and_figures(settings, home, monkeypatch):
    before = contents(settings.checkpoints)
    answers = (home / "figures" / "answer.csv").read_bytes()
    publish.publish(settings)
    after = contents(settings.checkpoints)
    assert (home / "figures" / "answer.csv").read_bytes() == answers
    assert {name: after[name] for name in before} == before, "what was trained stays as it is"
    first = [task for task in runs.study_tasks(settings) if task.seed == 0]
    published = settings.checkpoints / "published"
    assert len(list(published.glob("*/*/run.json"))) == len(first)
    for task in first:
        own = task.finished(settings.checkpoints)
        copy = load_run(published / own.dataset["name"] / own.folder.name)
        assert copy.record["published"]["weights"] in ("bfloat16", "float16")
        assert copy.history == own.history and copy.summary == own.summary
        assert abs(copy.record["published"]["rounding"]) <= publish.ROUNDING_LIMIT
    rows = read_results(home / "figures" / "results.csv")
    assert rows["rounding"].notna().sum() == len(first) == (rows["seed"] == 0).sum()
    assert rows["bound"].notna().equals(rows["rounding"].notna())
    readme = (home / "README.md").read_text()
    assert readme.startswith("before\n") and readme.endswith("after\n")
    answers = read_results(home / "figures" / "answer.csv")
    assert readme == publish.with_results(readme, publish.results_section(rows, answers))
    assert "the pixels of all images alike" in readme and "**At equal budgets.**" in readme
    kinds = ("curves", "interpolation", "samples")
    figures = [f"{data}-limit64-{kind}.png" for data in ("faces", "shapes") for kind in kinds]
    assert sorted(path.name for path in (home / "figures").glob("*.png")) == sorted(
        [*figures, "ladder.png"]
    )

    # A second time, from the published runs alone, nothing changes.
    shutil.rmtree(settings.checkpoints / "shapes-limit64")
    files = contents(published)
    monkeypatch.setattr(publish, "draw", lambda *_: [])
    publish.publish(settings)
    assert contents(published) == files
    assert contents(settings.checkpoints / "published.previous-1") == files


def test_publishing_an_answer_leaves_the_study_as_it_is(settings, home, monkeypatch, capsys):
    publish.publish(settings)
    monkeypatch.setattr(publish, "draw", lambda *_: [])
    monkeypatch.setattr(answer, "SHOWN", ("model=conv,local max_epochs=1",))
    table, published = home / "found.csv", settings.checkpoints / "published"
    rows = read_results(home / "figures" / "answer.csv")
    before, study = contents(published), (home / "figures" / "results.csv").read_bytes()

    permuted = rows["dataset"].str.contains("permuted")
    lacking = {
        "fc-conv ": rows[~permuted | (rows["model"] != "fc-conv")],
        "fc ": rows[rows["epochs"] != 12],
        "budgets": rows.assign(epochs=rows["epochs"].replace({3: 2, 12: 8})),
    }
    for lack, some in lacking.items():
        write_results(table, some.to_dict("records"))
        with pytest.raises(ValueError, match=f"the answer lacks {lack}"):
            publish.publish(replace(settings, results=table))
        assert contents(published) == before

    write_results(table, rows.to_dict("records"))
    publish.publish(replace(settings, results=table))
    after = contents(published)
    assert {name: after[name] for name in before} == before
    assert len({Path(name).parent for name in after.keys() - before.keys()}) == 2
    assert (home / "figures" / "results.csv").read_bytes() == study
    found = read_results(home / "figures" / "answer.csv")
    assert len(found) == len(rows) and found["rounding"].notna().sum() == 2

    # One seed more is one training more, also where nothing of the others is left.
    shutil.rmtree(settings.checkpoints / "shapes-limit64")
    monkeypatch.setattr(engine, "run_all", in_turn)
    monkeypatch.setattr(answer, "PUBLISHED", home / "figures" / "answer.csv")
    monkeypatch.setattr(answer, "GRIDS", (*GRIDS, "model=conv max_epochs=1 seed=1"))
    assert answer.command(replace(settings, report=home / "report")) == 0
    assert f"{len(found)} of {len(found) + 1} runs are in" in capsys.readouterr().out
    more = read_results(home / "report" / "answer.csv")
    assert more[:-1].equals(found) and more["seed"].tolist() == [0] * len(found) + [1]


@pytest.mark.parametrize("lack", ["model", "all", "run", "row", "disk", "weights", "mark"])
def test_what_cannot_be_published_changes_nothing(settings, home, lack, monkeypatch):
    rows = read_results(settings.results)
    said = {"model": "one of the two models", "run": "is not trained", "row": "has no "}
    said |= {
        "all": "git checkout",
        "disk": "full",
        "weights": "change the test loss",
        "mark": "lacks the marks",
    }
    chosen = replace(settings, results=home / "some.csv")
    if lack in ("model", "all"):
        chosen = replace(settings, results=None)
        some = rows[rows["model"] == "conv"] if lack == "model" else rows
        write_results(home / "figures" / "results.csv", some.to_dict("records"))
    elif lack == "run":
        chosen = replace(chosen, max_epochs=2)
    elif lack == "row":
        rows = rows[rows["reduction"] == "sum"]
    elif lack == "disk":
        full = Mock(side_effect=OSError("the disk is full"))
        monkeypatch.setattr(publish, "draw", full)
    elif lack == "weights":
        monkeypatch.setattr(publish, "ROUNDING_LIMIT", -1.0)
    else:
        (home / "README.md").write_text("no marks")
    write_results(home / "some.csv", rows.to_dict("records"))
    before = contents(home)
    with pytest.raises((ValueError, OSError), match=said[lack]) as error:
        publish.publish(chosen)
    one_line(error)
    assert contents(home) == before


def test_readme_says_what_the_published_results_say():
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    tables = (read_results(PROJECT / "figures" / name) for name in ("results.csv", "answer.csv"))
    assert publish.with_results(readme, publish.results_section(*tables)) == readme, "make publish"
