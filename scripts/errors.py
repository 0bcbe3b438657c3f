"""Write the page of all errors from the source: ``python scripts/errors.py [--check]``."""

import argparse
import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE, PAGE = ROOT / "pyro_amortized", ROOT / "docs" / "errors.md"
KINDS = {
    "SettingError": "An argument is of the wrong kind or outside its range.",
    "CohortError": "The data contradict each other.",
    "TableError": "A table cannot be read as a cohort.",
    "ModelError": "A Pyro model is not a mixed-effects model that the library can read.",
    "TrainingError": "A guide cannot be trained with these settings or simulations.",
    "GuideError": "A guide does not belong to this model or cohort.",
    "FitError": "A population model cannot be fitted.",
    "AmortizedError": "A file cannot be read or written, or worker processes fail.",
}


# What a reader knows these things as.
CALLS = {"len": "number", "int": "number", "float": "number", "numel": "number",
         "range": "numbers", "type": "class"}  # fmt: skip
NAMES = {"num": "number", "i": "number", "where": "number", "__name__": "class", "ids": "id",
         "strerror": "reason", "self": "its names"}  # fmt: skip


def trees() -> list[ast.Module]:
    """The modules of the source."""
    return [ast.parse(path.read_text("utf-8")) for path in sorted(SOURCE.rglob("*.py"))]


def constants(modules: list[ast.Module]) -> dict[str, str]:
    """Texts of the source that have a name."""
    found = {}
    for node in (node for module in modules for node in module.body):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            name, value = node.targets[0], node.value.value
            if isinstance(name, ast.Name) and isinstance(value, str):
                found[name.id] = value
    return found


TREES = trees()
CONSTANTS = constants(TREES)


def template(node: ast.expr) -> str:
    """The text of a message; what is filled in stands in angle brackets."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(template(part) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return template(node.left) + template(node.right)
    if isinstance(node, ast.FormattedValue):
        if isinstance(node.value, ast.Name) and node.value.id in CONSTANTS:
            text = CONSTANTS[node.value.id]
            return repr(text) if node.conversion == ord("r") else text
        node = node.value
    return f"‹{word(node)}›"


def word(node: ast.expr) -> str:
    """What an expression gives, in a word; dots if its parts do not say it."""
    if isinstance(node, ast.Name | ast.Attribute):
        name = node.id if isinstance(node, ast.Name) else node.attr
        known = NAMES.get(name) or CONSTANTS.get(name)
        return known or re.sub("^num ", "number of ", plain(name))
    if isinstance(node, ast.Subscript):  # of a shape, a single number or a part
        of, is_one = word(node.value), not isinstance(node.slice, ast.Slice)
        return "number" if is_one and of.endswith("shape") else of
    if isinstance(node, ast.GeneratorExp | ast.ListComp):
        return word(node.generators[0].iter)
    if isinstance(node, ast.IfExp):
        texts = [re.sub("[‹›]", "", template(x)) for x in (node.body, node.orelse)]
        return " or ".join(text for text in texts if text)
    if isinstance(node, ast.UnaryOp):
        return f"-{word(node.operand)}"
    if isinstance(node, ast.BinOp):
        is_text = isinstance(node.right, ast.Name) and node.right.id in CONSTANTS
        sign = "" if is_text else " - " if isinstance(node.op, ast.Sub) else " + "
        return f"{word(node.left)}{sign}{word(node.right)}"
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.Call):
        return of_call(node.func, node.args)
    return "…"


def of_call(function: ast.expr, arguments: list[ast.expr]) -> str:
    """What a call gives: what it is called with, in another form, or what it is called on."""
    if isinstance(function, ast.Attribute):
        if isinstance(function.value, ast.Name) and function.value.id == "self":
            return word(function)
        is_text = isinstance(function.value, ast.Constant)  # ", ".join(names)
        return CALLS.get(function.attr) or word(arguments[0] if is_text else function.value)
    name = getattr(function, "id", "")
    return CALLS.get(name) or (word(arguments[0]) if arguments else plain(name))


def plain(name: str) -> str:
    """A name of the source in words."""
    return (name.lower() if name.isupper() else name).strip("_").replace("_", " ")


def errors() -> dict[str, list[tuple[str, str, str]]]:
    """Messages by class: found, expected, to fix it."""
    found: dict[str, list[tuple[str, str, str]]] = {kind: [] for kind in KINDS}
    for node in (node for module in TREES for node in ast.walk(module)):
        if isinstance(node, ast.Call) and len(node.args) == 3:
            kind = getattr(node.func, "id", "")
            kind = "SettingError" if kind == "error" else kind
            if kind in found:
                parts = [re.sub(r"\s+", " ", template(x)).strip() for x in node.args]
                says = not all(re.fullmatch("‹[^›]*›", part) for part in parts)
                if says and (parts[0], parts[1], parts[2]) not in found[kind]:
                    found[kind].append((parts[0], parts[1], parts[2]))
    return found


def page() -> str:
    """The page."""
    lines = [
        "# Errors", "",
        "Every error is a `pyro_amortized.AmortizedError`, which is a `ValueError`.",
        "Its message says what was found, what was expected, and how to fix it.",
        "This page lists all errors by class.",
        "The parts in ‹ › are filled in when the error is raised.", "",
    ]  # fmt: skip
    messages = errors()
    for kind, about in KINDS.items():
        lines += [f"## {kind}", "", about, ""]
        for j, (found, expected, fix) in enumerate(sorted(messages[kind]), 1):
            lines += [
                f"(error-{kind.removesuffix('Error').lower()}-{j})=", "",
                f"**{escaped(found)}**", "",
                f": Expected: {escaped(expected)}", "",
                f": To fix: {escaped(fix)}", "",
            ]  # fmt: skip
    return "\n".join(lines)


def escaped(text: str) -> str:
    """Text for Markdown, in which nothing is a mark."""
    text = text if text.endswith((".", "!", "?", "›")) else f"{text}."
    parts = text.split("`")  # every second one is code
    plain = [re.sub(r"([\\*_{}\[\]<>$#|~^])", r"\\\1", x) for x in parts[::2]]
    parts[::2] = plain
    return "`".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    if parser.parse_args().check:
        if PAGE.read_text("utf-8") != page():
            raise SystemExit("docs/errors.md is not up to date: run scripts/errors.py")
        return
    PAGE.write_text(page(), "utf-8")


if __name__ == "__main__":
    main()
