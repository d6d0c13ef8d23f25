"""Publishing: rounded weights, tables, figures and documents, all of them or none."""

import shutil
from dataclasses import replace
from unittest.mock import Mock

import pytest
from helpers import contents, one_line

from vae_core.runs import load_run, train_or_load
from vae_core.runs.results import read_results, result_row, write_results
from vae_core.runs.training_run import published_name
from vae_core.storage import PROJECT
from vae_study import answer, publish
from vae_study.numbers import fill_documents
from vae_study.settings import Settings
from vae_study.tasks import back_up_runs, study_tasks

ANSWER_RUNS = ("model=conv max_epochs=8 learning_rate=2e-3 seed=0",)
DOCUMENT = """before
by <!--gain_longest-->?<!----> nats on <!--title-->?<!---->
<!-- table results -->
<!-- end of table -->
after
"""


def train(task, settings):
    run = train_or_load(**task.arguments, checkpoints=settings.checkpoints)
    return result_row(run, task.arguments["dataset"])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Settings of a small study; its runs with seed 0, and one run of the answer, are trained."""
    folder = tmp_path_factory.mktemp("study")
    settings = Settings(
        max_epochs=1,
        limit=64,
        precision="float32",
        sets=("p1",),
        seeds=(0, 1),
        workers=1,
        checkpoints=folder / "checkpoints",
        results=folder / "results.csv",
    )
    rows = [train(task, settings) for task in study_tasks(settings) if task.seed == 0]
    # The second seed only has to be in the table.
    second = [row | {"seed": 1} for row in rows if row["beta"] == 1 and row["model"] != "linear"]
    write_results(settings.results, rows + second)
    for task in answer.grid_tasks(settings, ANSWER_RUNS):
        train(task, settings)
    return settings


@pytest.fixture
def settings(trained, tmp_path, monkeypatch):
    """The small study in a folder of the test's own."""
    monkeypatch.setattr(publish, "BOUND_IMAGES", 1)
    shutil.copytree(trained.checkpoints, tmp_path / "checkpoints")
    return replace(trained, checkpoints=tmp_path / "checkpoints", report=tmp_path / "report")


@pytest.fixture
def project(settings, monkeypatch):
    """A project with a document, both published tables, and an answer about the small images."""
    folder = settings.checkpoints.parent
    (folder / "README.md").write_text(DOCUMENT)
    answers = read_results(PROJECT / "figures" / "answer.csv")
    dataset = study_tasks(settings)[0].arguments["dataset"]
    answers = answers.assign(
        dataset=answers["dataset"].str.replace("cifar10-jpeg-1186513a", dataset.folder),
        title=dataset.title,
        rounding=float("nan"),
        bound=float("nan"),
        precision=settings.precision,
    )
    write_results(folder / "figures" / "answer.csv", answers.to_dict("records"))
    shutil.copy(settings.results, folder / "figures" / "results.csv")
    monkeypatch.setattr(publish, "DOCUMENTS", (folder / "README.md",))
    monkeypatch.setattr(publish, "FIGURES", folder / "figures")
    monkeypatch.setattr(answer, "PUBLISHED_RUNS", ANSWER_RUNS)
    return folder


@pytest.fixture
def answer_settings(settings, project, monkeypatch):
    """Settings that publish the answer, without figures, which take seconds."""
    monkeypatch.setattr(publish, "draw_figures", lambda *_: {})
    shutil.copy(project / "figures" / "answer.csv", project / "new.csv")
    return replace(settings, results=project / "new.csv")


def test_publishing_writes_weights_table_documents_and_figures(settings, project, monkeypatch):
    before = contents(settings.checkpoints)
    answers = (project / "figures" / "answer.csv").read_bytes()
    publish.publish(settings)
    after = contents(settings.checkpoints)
    assert (project / "figures" / "answer.csv").read_bytes() == answers
    assert {name: after[name] for name in before} == before, "what was trained stays as it is"
    tasks = [task for task in study_tasks(settings) if task.seed == 0]
    published = settings.checkpoints / "published"
    assert len(list(published.glob("*/*/run.json"))) == len(tasks)
    for task in tasks:
        run = task.finished(settings.checkpoints)
        copy = load_run(published / run.dataset["name"] / published_name(run.config))
        publication = copy.provenance["published"]
        assert publication["weights"] in ("bfloat16", "float16")
        assert abs(publication["rounding"]) <= publish.ROUNDING_LIMIT
        assert copy.history == run.history and copy.summary == run.summary
    rows = read_results(project / "figures" / "results.csv")
    assert rows["rounding"].notna().equals(rows["seed"] == 0)
    assert rows["bound"].notna().equals(rows["rounding"].notna())
    document = project / "README.md"
    text = document.read_text()
    assert text.startswith("before\nby <!--gain_longest-->2.7 ± 0.2<!----> nats")
    assert "?" not in text and "| p1 | CVAE | 2 |" in text and text.endswith("after\n")
    answers = read_results(project / "figures" / "answer.csv")
    assert fill_documents([document], rows, answers) == {document: text}
    figures = {path.name for path in (project / "figures").glob("*.png")}
    names = ("curves", "interpolation", "samples")
    expected = {f"{data}-limit64-{name}.png" for data in ("faces", "shapes") for name in names}
    assert figures == {*expected, "ladder.png"}

    # A second time, from the published runs alone, nothing changes.
    shutil.rmtree(settings.checkpoints / "shapes-limit64")
    files = contents(published)
    monkeypatch.setattr(publish, "draw_figures", lambda *_: {})
    publish.publish(settings)
    assert contents(published) == files
    assert contents(settings.checkpoints / "published.previous-1") == files


def test_publishing_an_answer_leaves_the_study_as_it_is(answer_settings, project):
    published = answer_settings.checkpoints / "published"
    (published / "faces" / "run").mkdir(parents=True)
    (published / "faces" / "run" / "run.json").write_text("published before")
    results = (project / "figures" / "results.csv").read_bytes()
    rows = read_results(answer_settings.results)
    publish.publish(answer_settings)
    assert {path.parent.name for path in published.glob("*/*/run.json")} == {
        "run",
        "conv-p2-128-0.002-128-seed0-max_epochs8-patience0-cosine",
    }
    assert (published / "faces" / "run" / "run.json").read_text() == "published before"
    assert (project / "figures" / "results.csv").read_bytes() == results
    answers = read_results(project / "figures" / "answer.csv")
    assert len(answers) == len(rows) and answers["rounding"].notna().sum() == 1


def test_a_published_run_is_trained_again_when_asked(answer_settings):
    checkpoints = answer_settings.checkpoints
    publish.publish(answer_settings)
    (task,) = answer.grid_tasks(answer_settings, ANSWER_RUNS)
    shutil.rmtree(task.folder(checkpoints))
    assert task.finished(checkpoints).provenance["published"]
    back_up_runs([task], checkpoints)
    assert task.finished(checkpoints) is None
    train(task, answer_settings)
    assert not task.finished(checkpoints).provenance["published"]


def test_one_more_seed_of_an_answer_is_one_more_training(answer_settings, project, monkeypatch):
    published = read_results(project / "figures" / "answer.csv")
    trained_seeds = []

    def train_all(tasks, settings):
        trained_seeds.extend(task.seed for task in tasks)
        return [published.iloc[0].to_dict() | {"seed": task.seed} for task in tasks]

    monkeypatch.setattr(answer, "train_all", train_all)
    monkeypatch.setattr(answer, "PUBLISHED_TABLE", project / "figures" / "answer.csv")
    grid = "model=conv max_epochs=8 learning_rate=2e-3 seed=0,1,7"
    monkeypatch.setattr(answer, "GRIDS", (grid,))
    settings = replace(answer_settings, precision="auto")
    assert answer.run_command(settings) == 0
    assert trained_seeds == [7]
    rows = read_results(settings.report / "answer.csv")
    assert rows["seed"].tolist() == [0, 1, 7]
    assert set(rows["test_loss"][:2]) < set(published["test_loss"])


def without_model(settings, project, monkeypatch):
    rows = read_results(project / "figures" / "results.csv")
    rows = rows[rows["model"] == "conv"]
    write_results(project / "figures" / "results.csv", rows.to_dict("records"))


def without_run(settings, project, monkeypatch):
    monkeypatch.setattr(answer, "PUBLISHED_RUNS", ("model=conv max_epochs=8 seed=99",))


def without_row(settings, project, monkeypatch):
    rows = read_results(settings.results)
    rows = rows[rows["learning_rate"] != 2e-3]
    write_results(settings.results, rows.to_dict("records"))


def with_a_full_disk(settings, project, monkeypatch):
    monkeypatch.setattr(publish, "draw_figures", Mock(side_effect=OSError("the disk is full")))


def with_weights_that_cannot_be_rounded(settings, project, monkeypatch):
    monkeypatch.setattr(publish, "ROUNDING_LIMIT", -1.0)


def with_an_unknown_number(settings, project, monkeypatch):
    (project / "README.md").write_text("<!--gian-->2.7<!---->")


@pytest.mark.parametrize(
    ("obstacle", "message"),
    [
        (without_model, "one of the two models"),
        (without_run, "is not trained"),
        (without_row, "has no "),
        (with_a_full_disk, "full"),
        (with_weights_that_cannot_be_rounded, "change the test loss"),
        (with_an_unknown_number, r"README\.md"),
    ],
)
def test_what_cannot_be_published_changes_nothing(
    answer_settings, project, monkeypatch, obstacle, message
):
    obstacle(answer_settings, project, monkeypatch)
    before = contents(project)
    with pytest.raises((ValueError, OSError), match=message) as error:
        publish.publish(answer_settings)
    one_line(error)
    assert contents(project) == before


def test_figures_need_a_published_run(settings, project):
    before = contents(project)
    with pytest.raises(FileNotFoundError, match="git checkout"):
        publish.publish(replace(settings, results=None))
    assert contents(project) == before
