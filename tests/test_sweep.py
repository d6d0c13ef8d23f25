"""Fields of a run are varied: what is listed, what is refused, the table and its page."""

import pandas as pd
import pytest
from helpers import one_line

from study import __main__ as commands
from study import answer, sweep
from study.runs import Settings

TINY = {"limit": 64, "max_epochs": 1, "precision": "float32", "workers": 1}


def test_a_grid_is_every_combination_once():
    grid = sweep.parse("model=conv,fc learning_rate=1e-4,1e-3 seed=0,1,2 params=p2 patience=3")
    listed = sweep.tasks(grid, Settings(**TINY))
    assert len(listed) == len(set(listed)) == len({task.label for task in listed}) == 12
    first = listed[0]
    assert (first.model, first.seed, first.limit) == ("conv", 0, 64)
    assert first.params.learning_rate == 1e-4 and first.params.batch_size == 128
    assert first.options == {"max_epochs": 1, "precision": "float32", "patience": 3}
    usual = sweep.tasks({"dataset": ["faces"]}, Settings(sets=("p3",), seed=4))[0]
    assert (usual.params, usual.dataset, usual.seed) == ("p3", "faces", 4)


def test_options_of_the_data_are_fields_too():
    listed = sweep.tasks(sweep.parse("permuted=0,0.5 fraction=0.5,1 limit=20"), Settings(**TINY))
    found = [(task.permuted, task.fraction, task.limit) for task in listed]
    assert found == [(0, 0.5, 20), (0, 1, 20), (0.5, 0.5, 20), (0.5, 1, 20)]
    assert len({task.label for task in listed}) == 4
    names = {task.arguments["dataset"].folder for task in listed}
    assert len(names) == 4 and "shapes-fraction0.5-limit20-permuted0.5" in names


def test_every_run_of_the_answer_makes_sense_and_is_listed_once():
    listed = answer.tasks(Settings(), answer.GRIDS)
    assert len(listed) == len(set(listed)) == len({task.label for task in listed}) > 10
    assert {task.options["schedule"] for task in listed} == {"cosine"}
    shown = answer.tasks(Settings(), answer.SHOWN)
    assert shown and set(shown) <= set(listed)


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        ("", "is empty"),
        ("bet=1", "'bet' is unknown; give each once of model"),
        ("name=p9", "'name' is unknown"),
        ("beta=1 beta=2", "'beta' is named twice"),
        ("beta", "lacks a value"),
        ("beta=1,,2", "lacks a value"),
        ("beta=1,much", "no float"),
        ("seed=0.5", "no int"),
        ("beta=-1", "beta is -1.0"),
        ("beta=nan", "beta is nan"),
        ("latent_dim=0", "latent_dim is 0"),
        ("model=vit", "unknown model 'vit'"),
        ("permuted=1.5", "permuted is 1.5"),
        ("params=p9", "unknown parameter set 'p9'"),
        (f"seed={','.join(map(str, range(501)))}", "501 runs; YES=1"),
    ],
)
def test_a_grid_without_sense_is_one_line_and_trains_nothing(grid, said, tmp_path):
    with pytest.raises(ValueError, match=said) as error:
        sweep.sweep(grid, Settings(**TINY, checkpoints=tmp_path))
    assert one_line(error) and not [*tmp_path.iterdir()]


def test_a_sweep_leaves_a_table_and_a_page(tmp_path, monkeypatch, capsys):
    given = {"GRID": "beta=1,1e300,0.1 batch_size=32,64", "CHECKPOINTS": tmp_path / "runs"}
    given |= {"REPORT": tmp_path / "report", **{n.upper(): v for n, v in TINY.items()}}
    for name, value in given.items():
        monkeypatch.setenv(f"VAE_{name}", str(value))
    assert commands.main("sweep") == 1  # two of the runs diverge, which is said, and the others end
    said = capsys.readouterr()
    assert said.err.count("infinite or not a number") == 2 and "6 runs, 6 of them" in said.out
    table = pd.read_csv(tmp_path / "report" / "sweep.csv")
    found = table[["beta", "batch_size"]].to_numpy().tolist()
    assert found == [[1, 32], [1, 64], [0.1, 32], [0.1, 64]] and (table["test_loss"] > 0).all()
    page = (tmp_path / "report" / "sweep.html").read_text()
    assert "data:image/png" in page and page.count("<tr>") == 4

    loss = sweep.figure(table, ["beta", "batch_size"]).axes[0]
    assert loss.get_xscale() == "log" and loss.get_xlabel() == "beta"
    legend = [text.get_text() for text in loss.get_legend().texts]
    assert legend == ["batch_size 32", "batch_size 64"]
