"""The house of the design: imports point down, and files of bytes are never executed."""

import ast

import pytest

from vae_core.storage import PROJECT

FLOORS = (
    {"storage"},
    {"data", "models", "loss", "parameter_sets", "hardware"},
    {"latent", "baselines"},
    {"evaluation"},
    {"training"},
    {"checkpoints"},
    {"tables", "experiment"},
    {"figures", "controls"},
    {"explorer"},
)
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}
MODULES = sorted(path for path in (PROJECT / "vae_core").rglob("*.py") if path.stem != "__init__")
EACH = pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
UNSAFE = {"pickle", "marshal", "shelve", "dill", "joblib", "eval", "exec", "torch.load"}


def names_used(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, (ast.Attribute, ast.Name)):
            yield ast.unparse(node)


def imported_modules(path):
    for name in names_used(path):
        parts = name.split(".")
        if parts[0] == "vae_core" and len(parts) > 1 and parts[1] in FLOOR:
            yield parts[1]


def test_every_module_has_a_floor():
    outside = {path.stem for path in MODULES if path.parent.name == "vae_core"}
    assert outside | {"data"} == FLOOR.keys()


@EACH
def test_imports_point_down(path):
    own = "data" if path.parent.name == "data" else path.stem
    for other in imported_modules(path):
        assert other == own == "data" or FLOOR[other] < FLOOR[own], f"{path} imports {other}"


@EACH
def test_no_module_can_execute_the_bytes_of_a_file(path):
    used = set(names_used(path)) | {name.split(".")[0] for name in names_used(path)}
    assert not used & UNSAFE and "study" not in used


def test_the_science_reads_in_one_sitting():
    core = ("models", "loss", "parameter_sets", "training", "latent")
    texts = [(PROJECT / f"vae_core/{name}.py").read_text(encoding="utf-8") for name in core]
    assert sum(text.count("\n") for text in texts) <= 600
