import dataclasses

import pytest
from helpers import TINY, contents

from vae_core.config import PARAMETER_SETS
from vae_core.runs import load_run
from vae_core.runs.__main__ import main
from vae_core.runs.checkpoints import RUN, STATE


def program(tmp_path, *arguments):
    options = ["--limit", "20", "--max-epochs", "1", "--device", "cpu", "--precision", "float32"]
    return main([*options, *arguments, "--checkpoints", str(tmp_path)])


def test_the_program_trains_and_then_loads(tmp_path, capsys):
    assert program(tmp_path, "--model", "conv") == 0
    first = capsys.readouterr()
    folder = tmp_path / "shapes-limit20" / "conv-p1-seed0-max_epochs1-float32"
    run = load_run(folder)
    assert first.err == ""
    assert first.out.count("\n") == 1
    assert first.out.startswith(f"{folder}: 1 epochs")
    assert f"{run.summary['test']['loss']:.2f}" in first.out
    before = contents(tmp_path)
    assert program(tmp_path, "--model", "conv") == 0
    assert capsys.readouterr() == first
    assert contents(tmp_path) == before


def test_every_field_is_an_option(tmp_path):
    arguments = "--model fc --patience 0 --beta 2 --decoder-variance learned --flip --dropout 0.1"
    assert program(tmp_path, *arguments.split()) == 0
    (folder,) = (path.parent for path in tmp_path.rglob(RUN))
    config = load_run(folder).config
    assert (config.beta, config.decoder_variance, config.flip, config.dropout) == (
        2.0,
        "learned",
        True,
        0.1,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--model cnn", "'cnn'"),
        ("--model fc --params p9", "'p9'"),
        ("--model fc --dataset no-such-set", "'no-such-set'"),
        ("--model fc --limit 0", "limit is 0"),
        ("--model fc --limit abc", "'abc'"),
        ("--model fc --beta nan", "beta is nan"),
        ("--model fc --decoder-variance small", "decoder-variance"),
        ("--model fc --device abacus", "'abacus'"),
        ("--model fc --device cpu:x", "'cpu:x'"),
        ("--model fc --colour red", "--colour"),
        ("", "--model"),
    ],
)
def test_the_program_says_what_is_wrong_in_one_line(tmp_path, arguments, message, capsys):
    assert program(tmp_path, *arguments.split()) == 1
    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert printed.out == ""
    assert not contents(tmp_path)


def test_the_program_says_where_a_training_diverged(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(PARAMETER_SETS, "p1", dataclasses.replace(TINY, learning_rate=1.0))
    assert program(tmp_path, "--model", "fc", "--max-epochs", "9") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "epoch 1" in line
    assert not list(tmp_path.rglob(RUN))
    assert not list(tmp_path.rglob(STATE))
