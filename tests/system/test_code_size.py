"""No file and no function is too long to be read at once, and no name stands for two classes."""

import ast

import pytest

from ..paths import ROOT

MAX_FILE = 350
MAX_FUNCTION = 40  # without the docstring
FOLDERS = ("pyro_amortized", "benchmarks", "examples", "scripts", "tests")


def function_lines(function):
    """Lines of a function from its `def`, less those of its docstring."""
    lines = function.end_lineno - function.lineno + 1
    if ast.get_docstring(function) is not None:
        first = function.body[0]
        lines -= first.end_lineno - first.lineno + 1
    return lines


@pytest.mark.parametrize("folder", FOLDERS)
def test_files_and_functions_are_short(folder):
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    for path in sorted((ROOT / folder).rglob("*.py")):
        text = path.read_text()
        assert len(text.splitlines()) <= MAX_FILE, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, kinds):
                assert function_lines(node) <= MAX_FUNCTION, (path, node.name)


def named_types(module):
    """Names of the classes of a module, and of its aliases of types, which begin with a capital."""
    yield from (node.name for node in ast.walk(module) if isinstance(node, ast.ClassDef))
    for node in module.body:
        if isinstance(node, ast.Assign) and "TypeVar" not in ast.unparse(node.value):
            names = [x.id for x in node.targets if isinstance(x, ast.Name)]
            yield from (x for x in names if x[0].isupper() and not x.isupper())


def test_every_class_has_a_name_of_its_own():
    places = {}
    for path in sorted((ROOT / "pyro_amortized").rglob("*.py")):
        for name in named_types(ast.parse(path.read_text())):
            places.setdefault(name, []).append(str(path.relative_to(ROOT)))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}
