"""Sweeps: the list of their runs, invalid values, their table and their page."""

import pandas as pd
import pytest
from helpers import one_line

from vae_study import answer
from vae_study.__main__ import main
from vae_study.settings import Settings
from vae_study.sweep import parse_grid, sweep, sweep_figure, sweep_tasks

TINY = {"limit": 64, "max_epochs": 1, "precision": "float32", "workers": 1}


def test_a_grid_lists_every_combination_once():
    grid = parse_grid("model=conv,fc learning_rate=1e-4,1e-3 seed=0,1,2 params=p2 patience=3")
    tasks = sweep_tasks(grid, Settings(**TINY))
    assert len(tasks) == len(set(tasks)) == len({task.label for task in tasks}) == 12
    first = tasks[0]
    assert (first.model, first.seed, first.limit) == ("conv", 0, 64)
    assert first.params.learning_rate == 1e-4 and first.params.batch_size == 128
    assert first.options == {"max_epochs": 1, "precision": "float32", "patience": 3}
    (task,) = sweep_tasks({"dataset": ["faces"]}, Settings(sets=("p3",), seed=4))
    assert (task.params, task.dataset, task.seed) == ("p3", "faces", 4)


def test_options_of_the_data_are_fields_too():
    tasks = sweep_tasks(parse_grid("permuted=0,0.5 fraction=0.5,1 limit=20"), Settings(**TINY))
    options = [(task.permuted, task.fraction, task.limit) for task in tasks]
    assert options == [(0, 0.5, 20), (0, 1, 20), (0.5, 0.5, 20), (0.5, 1, 20)]
    assert len({task.label for task in tasks}) == 4
    folders = {task.arguments["dataset"].folder for task in tasks}
    assert len(folders) == 4 and "shapes-fraction0.5-limit20-permuted0.5" in folders


def test_values_have_the_type_of_their_field():
    assert parse_grid("seed=1 beta=1 flip=0,1 decoder_variance=0.5,learned") == {
        "seed": [1],
        "beta": [1.0],
        "flip": [False, True],
        "decoder_variance": [0.5, "learned"],
    }


def test_every_run_of_the_answer_is_valid_and_listed_once():
    tasks = answer.grid_tasks(Settings(), answer.GRIDS)
    assert len(tasks) == len(set(tasks)) == len({task.label for task in tasks}) > 10
    assert {task.options["schedule"] for task in tasks} == {"cosine"}
    published = answer.grid_tasks(Settings(), answer.PUBLISHED_RUNS)
    assert published and set(published) <= set(tasks)


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ("", "is empty"),
        ("bet=1", "'bet' is unknown.*model"),
        ("name=p9", "'name' is unknown"),
        ("beta=1 beta=2", "'beta' is repeated"),
        ("beta", "'beta' lacks a value"),
        ("seed=0,0", "'seed' has a value twice"),
        ("beta=1,1.0", "'beta' has a value twice"),
        ("beta=1,,2", "'beta' lacks a value"),
        ("beta=1,much", "no float"),
        ("seed=0.5", "no int"),
        ("flip=perhaps", "no bool"),
        ("beta=-1", "beta is -1.0"),
        ("beta=nan", "beta is nan"),
        ("latent_dim=0", "latent_dim is 0"),
        ("model=vit", "unknown model 'vit'"),
        ("permuted=1.5", "permuted is 1.5"),
        ("params=p9", "unknown parameter set 'p9'"),
        (f"seed={','.join(map(str, range(501)))}", "501 runs; YES=1"),
    ],
)
def test_an_invalid_grid_is_one_line_and_trains_nothing(grid, message, tmp_path):
    with pytest.raises(ValueError, match=message) as error:
        sweep(grid, Settings(**TINY, checkpoints=tmp_path))
    assert one_line(error) and not [*tmp_path.iterdir()]


def test_a_sweep_writes_a_table_and_a_page(tmp_path, monkeypatch, capsys):
    settings = {"GRID": "beta=1,1e300,0.1 batch_size=32,64", "CHECKPOINTS": tmp_path / "runs"}
    settings |= {"REPORT": tmp_path / "report", **{name.upper(): TINY[name] for name in TINY}}
    for name, value in settings.items():
        monkeypatch.setenv(f"VAE_{name}", str(value))
    assert main("sweep") == 1  # two of the runs diverge, and the others succeed
    printed = capsys.readouterr()
    assert printed.err.count("infinite") == 2 and "6 runs, 6 of them" in printed.out
    table = pd.read_csv(tmp_path / "report" / "sweep.csv")
    values = table[["beta", "batch_size"]].to_numpy().tolist()
    assert values == [[1, 32], [1, 64], [0.1, 32], [0.1, 64]] and (table["test_loss"] > 0).all()
    page = (tmp_path / "report" / "sweep.html").read_text()
    assert "data:image/png" in page and page.count("<tr>") == 4

    # A second sweep keeps the table and the page of the first.
    first = (tmp_path / "report" / "sweep.csv").read_bytes()
    monkeypatch.setenv("VAE_GRID", "beta=1 batch_size=32")
    assert main("sweep") == 0
    assert (tmp_path / "report" / "sweep.previous-1.csv").read_bytes() == first
    assert (tmp_path / "report" / "sweep.previous-1.html").read_text() == page
    assert len(pd.read_csv(tmp_path / "report" / "sweep.csv")) == 1

    loss = sweep_figure(table, ["beta", "batch_size"]).axes[0]
    assert loss.get_xscale() == "log" and loss.get_xlabel() == "beta"
    legend = [text.get_text() for text in loss.get_legend().texts]
    assert legend == ["batch_size 32", "batch_size 64"]
