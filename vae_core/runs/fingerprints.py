"""The identity of the code that a run's numbers go through.

It follows names: from the model's classes, the loss, the evaluation and the training to every
function, class and constant of this project (or of a notebook) that they use. A change in any of
them is another identity. Comments, docstrings, annotations, error messages, other models and
unused functions are not part of it.
"""

import ast
import dataclasses
import hashlib
import inspect
import sys
import sysconfig
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import torch

from vae_core import config, evaluation, loss, storage, training
from vae_core.models import VAE

# Code that no number goes through: files, messages and the checks of a configuration.
IGNORED_MODULES = {storage.__name__, config.__name__}
# Class attributes of a model that only people read.
IGNORED_ATTRIBUTES = {"name", "title", "colour"}
OWN_PACKAGE = __name__.split(".")[0]
LIBRARIES = {
    str(Path(sysconfig.get_path(path)).resolve()) for path in ("stdlib", "purelib", "platlib")
}


def training_code(model_class: type[VAE]) -> dict[str, str]:
    """Return a hash, 16 hexadecimal digits, for each part of the code behind a run of this model.

    The parts are "the model", "the loss", "the evaluation" and "the training". A function that
    several parts use belongs to the first of them.
    """
    parts = {
        "the model": [model_class],
        "the loss": [loss.elbo],
        "the evaluation": [evaluation.evaluate],
        "the training": [training.train],
    }
    visited: set[int] = set()
    hashes = {}
    for part, roots in parts.items():
        digest = hashlib.sha256()
        for text in collect(roots, visited):
            digest.update(text.encode())
        hashes[part] = digest.hexdigest()[:16]
    return hashes


def collect(roots: list[Any], visited: set[int]) -> list[str]:
    """Return a text for each function, class or constant that the roots use, themselves included.

    Objects whose id is in `visited` are left out; those that are reached are added to it.
    """
    texts, waiting = [], list(reversed(roots))
    while waiting:
        item = unwrap(waiting.pop())
        if id(item) in visited or not is_followed(item):
            continue
        visited.add(id(item))
        if isinstance(item, type):
            text, used = describe_class(item)
        else:
            text, used = describe_function(item)
        texts.append(text)
        waiting.extend(reversed(used))
    return texts


def is_followed(item: Any) -> bool:
    """Return whether an object is a function or class of this project, or of the user's own."""
    if not isinstance(item, (type, FunctionType)) or item.__module__ in IGNORED_MODULES:
        return False
    if item.__module__.split(".")[0] == OWN_PACKAGE:  # also where it is installed as a library
        return True
    module = sys.modules.get(item.__module__)
    file = getattr(module, "__file__", None)
    if file is None:  # built in, or defined in a notebook or on standard input
        return item.__module__ == "__main__"
    folders = {str(parent) for parent in Path(file).resolve().parents}
    return not folders & LIBRARIES


def describe_class(item: type) -> tuple[str, list[Any]]:
    """Return a text with a class's simple attributes, and what the class uses."""
    used = list(item.__bases__)
    lines = [f"class {item.__qualname__}"]
    if issubclass(item, tuple):
        return f"{lines[0]} {getattr(item, '_fields', ())}", used
    for name, value in vars(item).items():
        if name.startswith("__") and name not in ("__init__", "__call__", "__post_init__"):
            continue
        function = unwrap(value)
        if isinstance(function, FunctionType):
            if not is_generated(item, function):
                used.append(function)
        elif isinstance(value, type):
            lines.append(f"{name} = {value.__qualname__}")
            used.append(value)
        elif name not in IGNORED_ATTRIBUTES and is_simple(value):
            lines.append(f"{name} = {value!r}")
    return "\n".join(lines), used


def is_generated(item: type, function: FunctionType) -> bool:
    """Return whether a method was written by `dataclass`, so that it has no source."""
    return dataclasses.is_dataclass(item) and function.__code__.co_filename == "<string>"


def unwrap(value: Any) -> Any:
    """Return the plain function behind a method, a property or a decorator."""
    if isinstance(value, (staticmethod, classmethod)):
        value = value.__func__
    if isinstance(value, property):
        value = value.fget
    return inspect.unwrap(value) if callable(value) else value


def describe_function(function: FunctionType) -> tuple[str, list[Any]]:
    """Return a text with the code of a function and the constants it uses, and what it uses."""
    parsed = parse_function(function.__code__)
    lines, used = [f"def {function.__qualname__}"], []
    if parsed is None:
        lines.append(bytecode(function.__code__))
        names = sorted(bytecode_names(function.__code__))
    else:
        lines.append(parsed.text)
        names = parsed.names
    lines.append(repr(function.__defaults__) if is_simple(function.__defaults__) else "")
    for name in names:
        value = unwrap(resolve(name, function))
        if is_simple(value):
            lines.append(f"{name} = {value!r}")
        elif isinstance(value, (type, FunctionType)):
            used.append(value)
    return "\n".join(lines), used


def resolve(name: str, function: FunctionType) -> Any:
    """Return what a dotted name means inside a function; None where it is not a global name."""
    first, *rest = name.split(".")
    names = dict(zip(function.__code__.co_freevars, closure_values(function), strict=True))
    value = names.get(first, function.__globals__.get(first))
    for attribute in rest:
        if not isinstance(value, (ModuleType, type)):
            return None
        value = getattr(value, attribute, None)
    return value


def closure_values(function: FunctionType) -> list[Any]:
    """Return the values of a function's free variables, None where one is not yet set."""
    values = []
    for cell in function.__closure__ or ():
        try:
            values.append(cell.cell_contents)
        except ValueError:
            values.append(None)
    return values


def is_simple(value: Any) -> bool:
    """Return whether a value is a number, a text, or a container of such values."""
    if value is None or isinstance(value, (dict, list, tuple, set)):
        if isinstance(value, dict):
            return all(is_simple(entry) and entry is not None for entry in value.values())
        return value is not None and all(is_simple(entry) for entry in value)
    return isinstance(value, (bool, int, float, str, torch.memory_format, torch.dtype))


@dataclasses.dataclass(frozen=True)
class ParsedFunction:
    """The normalized source of a function and the dotted names that it reads."""

    text: str
    names: list[str]


@cache
def parse_function(code: CodeType) -> ParsedFunction | None:
    """Parse the source of a function; None where there is no source, as on standard input."""
    try:
        source = textwrap.dedent(inspect.getsource(code))
        tree = ast.parse(source)
    except (OSError, TypeError, SyntaxError):
        return None
    tree = Normalizer().visit(tree)
    names = dict.fromkeys(dotted_names(tree))
    return ParsedFunction(canonical_text(tree), list(names))


class Normalizer(ast.NodeTransformer):
    """Removes from a syntax tree what no number depends on.

    These are docstrings, annotations and the messages of errors. Texts with inserted values become
    tuples, because Python's versions write their quotes differently.
    """

    def visit_FunctionDef(self, node):
        """Remove the docstring and the annotations of a function."""
        if ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        node.returns = None
        return self.generic_visit(node)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_ClassDef(self, node):
        """Remove the docstring of a class."""
        if ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        return self.generic_visit(node)

    def visit_arg(self, node):
        """Remove the annotation of a parameter."""
        node.annotation = None
        return node

    def visit_AnnAssign(self, node):
        """Turn an annotated assignment into a plain one."""
        if node.value is None:
            return ast.Pass()
        return self.generic_visit(ast.Assign(targets=[node.target], value=node.value))

    def visit_Raise(self, node):
        """Remove what an error says."""
        return ast.Raise(exc=None, cause=None)

    def visit_JoinedStr(self, node):
        """Turn an f-string into the tuple of its parts."""
        parts = []
        for value in node.values:
            if isinstance(value, ast.FormattedValue):
                parts.append(self.visit(value.value))
            else:
                parts.append(value)
        return ast.Tuple(elts=parts, ctx=ast.Load())


# Fields of syntax trees that differ between Python's versions, or mean nothing here.
IGNORED_FIELDS = {"ctx", "kind", "type_comment", "type_params"}


def canonical_text(node: Any) -> str:
    """Return a syntax tree as text that is the same in all versions of Python."""
    if isinstance(node, ast.AST):
        fields = [
            f"{name}={canonical_text(value)}"
            for name, value in ast.iter_fields(node)
            if name not in IGNORED_FIELDS
        ]
        return f"{type(node).__name__}({', '.join(fields)})"
    if isinstance(node, list):
        return f"[{', '.join(canonical_text(entry) for entry in node)}]"
    return repr(node)


def dotted_names(tree: ast.AST) -> Iterator[str]:
    """Yield the names that code reads, and dotted ones such as "nn.functional.pad" whole."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            parts, value = [node.attr], node.value
            while isinstance(value, ast.Attribute):
                parts.append(value.attr)
                value = value.value
            if isinstance(value, ast.Name):
                yield ".".join([value.id, *reversed(parts)])


def bytecode(code: CodeType) -> str:
    """Return the instructions and constants of a code object and of those inside it, as text."""
    constants = [
        bytecode(constant) if isinstance(constant, CodeType) else repr(constant)
        for constant in code.co_consts
    ]
    return f"{code.co_code.hex()} {constants} {code.co_names}"


def bytecode_names(code: CodeType) -> set[str]:
    """Return the names that a code object and those inside it use."""
    names = {*code.co_names, *code.co_freevars}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= bytecode_names(constant)
    return names
