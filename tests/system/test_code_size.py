"""No file and no function is too long to be read at once."""

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
