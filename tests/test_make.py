"""What make passes on, calls and removes, in a clone whose path is dangerous in a shell."""

import json
import os
import shlex
import shutil
import subprocess
import sys

import pytest

from vae_core.storage import PROJECT

# Names of files that are dangerous in a shell or in make.
AWKWARD = ["my faces", "of celeba stars", "it's", 'say "so"', "$HOME $x $(touch pwned) ${y}"]
AWKWARD += ["a;touch pwned", "`touch pwned`", "a&touch pwned|b>c", "(2) [3] {4}", "50%*?#~!"]
AWKWARD += ["back\\slash\\", "new\nline", "猫 Ärger", "-n"]
TEXTS = ("DATASET", "FACES", "REPORT", "RESULTS", "GRID")  # settings that may be any text
# What each target runs, apart from `vae_study`.
TOOLS = {
    "test": "ruff ruff pytest pytest",
    "pair": "vae_study.pairs",
    "reference": "vae_study.pairs nbconvert",
}
TOOLS |= {"lab": "jupyterlab", "bench": ""}
PYTHON = shlex.quote(sys.executable)
STUB = """#!/bin/sh
exec {python} - "$@" << 'END'
import json, os, sys
vae = {{name: value for name, value in os.environ.items() if name.startswith("VAE_")}}
with open("calls", "a", encoding="utf-8") as calls:
    calls.write(json.dumps([sys.argv[1:], vae]) + "\\n")
END
"""


@pytest.fixture
def clone(tmp_path):
    """A clone at an awkward path, with an environment whose python writes down its calls."""
    folder = tmp_path / "a b" / "it's (2) $x;y" / "vae"
    (folder / ".venv" / "bin").mkdir(parents=True)
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        shutil.copy(PROJECT / name, folder)
    python = folder / ".venv" / "bin" / "python"
    python.write_text(STUB.format(python=PYTHON))
    python.chmod(0o755)
    (folder / ".venv" / ".ready").touch()
    return folder


def make(folder, *arguments, **environment):
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    pipes = {"capture_output": True, "text": True, "check": False}
    return subprocess.run(["make", *arguments], cwd=folder, env=kept | environment, **pipes)


def calls(folder):
    return [json.loads(line) for line in (folder / "calls").read_text("utf-8").splitlines()]


@pytest.mark.parametrize("first", range(0, len(AWKWARD), len(TEXTS)))
def test_a_setting_reaches_python_character_for_character(clone, first):
    settings = dict(zip(TEXTS, AWKWARD[first : first + len(TEXTS)], strict=False))
    settings["SETS"] = "p1 p1"
    done = make(clone, "report", *(f"{name}={text}" for name, text in settings.items()))
    assert done.returncode == 0, done.stderr
    ((arguments, passed),) = calls(clone)
    assert arguments == ["-m", "vae_study", "report"]
    passed.pop("VAE_PYTHON")
    assert passed == {f"VAE_{name}": text for name, text in settings.items()}
    assert not list(clone.rglob("pwned"))


def test_a_missing_setting_is_not_passed_on_and_an_empty_one_is(clone):
    make(clone, "study", "DATASET=")
    ((_, passed),) = calls(clone)
    assert passed == {"VAE_DATASET": "", "VAE_PYTHON": "python3"}


@pytest.mark.parametrize("target", TOOLS)
def test_a_target_runs_tools_of_its_environment_and_removes_nothing(clone, target):
    (clone.parent / "neighbour.txt").write_text("not yours")
    before = {*clone.parent.rglob("*"), clone / "calls"}
    assert make(clone, "-j4", target).returncode == 0
    tools = [arguments[1] for arguments, _ in calls(clone) if arguments[0] == "-m"]
    assert tools == TOOLS[target].split() and {*clone.parent.rglob("*")} == before


def test_clean_removes_only_folders_that_make_has_made(clone):
    (clone / "report").mkdir()
    (clone / "mine").mkdir()
    assert make(clone, "clean", "REPORT=mine", REPORT="mine").returncode == 0
    assert (clone / "report").exists() and (clone / "mine").exists()
    assert not (clone / ".venv").exists()
    (clone / "report" / ".made-by-make-report").touch()
    make(clone, "clean")
    assert not (clone / "report").exists() and (clone / "mine").exists()


def test_help_names_every_target(clone):
    lines = make(clone).stdout.splitlines()
    targets = "help report study answer sweep publish lab pair reference test bench clean"
    assert [line.split()[0] for line in lines] == targets.split()


@pytest.mark.parametrize(
    ("fails", "advice"),
    [("-c", "3.10, 3.11 or 3.12"), ("-m", "python3-venv; a disk without links")],
)
def test_an_environment_that_cannot_be_built_is_one_line(clone, fails, advice):
    (clone / ".venv" / ".ready").unlink()
    python = clone / "odd python"
    python.write_text(f'#!/bin/sh\n[ "$1" != {fails} ]\n')
    python.chmod(0o755)
    done = make(clone, "report", f"PYTHON={python}")
    assert done.returncode != 0 and advice in done.stdout
    assert not (clone / "calls").exists()


def test_a_copied_clone_runs_its_own_code(clone):
    """The environment is copied with the clone, and is built by the Makefile."""
    shutil.rmtree(clone / ".venv")
    python = clone / "python"  # builds an environment without the packages
    python.write_text(f'#!/bin/sh\n[ "$2" != venv ] || exec {PYTHON} -m venv --without-pip .venv\n')
    python.chmod(0o755)
    (clone / "requirements.txt").write_text("")
    (clone / "vae_core").mkdir()
    (clone / "vae_core" / "__init__.py").touch()
    make(clone, ".venv/.ready", f"PYTHON={python}")
    site = next((clone / ".venv" / "lib").glob("python*/site-packages"))
    site.joinpath("pip.py").touch()  # stands for what would be installed
    assert make(clone, ".venv/.ready", f"PYTHON={python}").returncode == 0
    copy = clone.parent / "copy"
    shutil.copytree(clone, copy, symlinks=True)
    shutil.rmtree(clone / "vae_core")
    command = [copy / ".venv" / "bin" / "python", "-c", "import vae_core; print(vae_core.__file__)"]
    printed = subprocess.run(command, cwd="/", capture_output=True, text=True, check=True).stdout
    assert printed.strip() == str(copy / "vae_core" / "__init__.py")


def test_no_line_ending_is_changed_in_a_clone(tmp_path):
    shutil.copy(PROJECT / ".gitattributes", tmp_path)
    for command in ("init --quiet", "check-attr text eol -- checkpoints/a/run.json a.py"):
        command = ["git", *command.split()]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    # Git keeps the bytes of a run, and writes line feeds into all text files.
    assert "checkpoints/a/run.json: text: unset\n" in done.stdout
    assert "a.py: text: auto\na.py: eol: lf\n" in done.stdout


def fake_python(folder):
    """A python that passes the version check and makes an empty environment, or nothing."""
    path = folder / "python"
    path.write_text('#!/bin/sh\ncase "$*" in *venv*) mkdir -p .venv/bin; echo "$@" > made;; esac\n')
    path.chmod(0o755)
    return path


def test_an_environment_without_its_python_is_built_again_from_nothing(clone, tmp_path):
    (clone / ".venv" / "bin" / "python").unlink()
    (clone / ".venv" / "bin" / "python").symlink_to(tmp_path / "gone")
    make(clone, "pair", f"PYTHON={fake_python(tmp_path)}")
    assert (clone / "made").read_text() == "-m venv --clear .venv\n"


def test_an_environment_that_is_a_link_is_named(clone, tmp_path):
    shutil.move(clone / ".venv", tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / ".ready").unlink()
    (clone / ".venv").symlink_to(tmp_path / "elsewhere")
    done = make(clone, "pair", f"PYTHON={fake_python(tmp_path)}")
    assert done.returncode != 0
    assert ".venv is a link" in done.stdout
    assert not (clone / "made").exists()
