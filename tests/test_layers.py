"""The layers of the design: imports point down, and files of bytes are never executed."""

import ast
from itertools import chain

import pytest

from vae_core.storage import PROJECT

# From bottom to top. A module imports only modules of layers below its own, or of its own package.
LAYERS = (
    ("vae_core.storage",),
    ("vae_core.models", "vae_core.loss", "vae_core.intervals", "vae_core.data"),
    ("vae_core.config", "vae_core.latent"),
    ("vae_core.evaluation", "vae_core.figures"),
    ("vae_core.training",),
    ("vae_core.runs",),
    ("vae_core.explorer",),
    ("vae_study",),
)
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names}
FLAT = {name for name in LAYER if not name.endswith((".data", ".runs", ".explorer", "vae_study"))}
FILES = sorted(chain((PROJECT / "vae_core").rglob("*.py"), (PROJECT / "vae_study").rglob("*.py")))
EACH_FILE = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
UNSAFE = {"pickle", "marshal", "shelve", "dill", "joblib", "eval", "exec"}


def package_of(path):
    parts = path.relative_to(PROJECT).with_suffix("").parts
    return "vae_study" if parts[0] == "vae_study" else ".".join(parts[:2])


def imported_names(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_packages(path):
    for name in imported_names(ast.parse(path.read_text(encoding="utf-8"))):
        parts = name.split(".")
        if parts[0] == "vae_study":
            yield "vae_study"
        elif parts[0] == "vae_core" and ".".join(parts[:2]) in LAYER:
            yield ".".join(parts[:2])


@EACH_FILE
def test_imports_point_down(path):
    package = package_of(path)
    if package == "vae_core.__init__":
        assert not list(imported_packages(path))
        return
    assert package in LAYER, f"{path} has no layer"
    for other in imported_packages(path):
        assert other == package or LAYER[other] < LAYER[package], f"{path} imports {other}"


@pytest.mark.parametrize("path", [path for path in FILES if package_of(path) in FLAT])
def test_the_science_imports_no_wing(path):
    assert set(imported_packages(path)) <= FLAT


@EACH_FILE
def test_no_file_executes_the_bytes_of_another(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {name.split(".")[0] for name in imported_names(tree)}
    names |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    allowed = {"pickle"} if path.name == "engine.py" else set()  # a task on its way to a worker
    assert not names & UNSAFE - allowed
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
            assert any(keyword.arg == "weights_only" for keyword in node.keywords)


def functions(tree):
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


@EACH_FILE
def test_a_function_fits_on_a_screen(path):
    for node in functions(ast.parse(path.read_text(encoding="utf-8"))):
        length = node.end_lineno - node.lineno + 1
        assert length <= 60, f"{path}: {node.name} has {length} lines"
