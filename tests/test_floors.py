"""The house of the design: an import may only point to a lower floor."""

import ast
from pathlib import Path

import pytest

import vae_core

FLOORS = (
    {"parameter_sets", "models", "loss", "synthetic", "files", "progress", "vision"},
    {"picture_files"},
    {"data", "checkpoints", "evaluation"},
    {"training", "latent"},
    {"results"},
    {"claims", "experiment", "figures", "execute", "report"},
    {"study", "gallery"},
    {"publish"},
)
FOLDER = Path(vae_core.__file__).parent
MODULES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")


def floor(name):
    return next(number for number, names in enumerate(FLOORS) if name in names)


def imported_modules(name):
    for node in ast.walk(ast.parse((FOLDER / f"{name}.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "vae_core":
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vae_core."):
            yield node.module.removeprefix("vae_core.")


def test_every_module_has_a_floor():
    assert sorted(set.union(*FLOORS)) == MODULES


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_down(name):
    for other in imported_modules(name):
        assert floor(other) < floor(name), f"{name} imports {other}"
