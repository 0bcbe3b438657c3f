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


def template(node: ast.expr) -> str:
    """The text of a message; what is filled in stands in angle brackets."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(
            str(x.value) if isinstance(x, ast.Constant) else f"‹{short(x)}›" for x in node.values
        )
    if isinstance(node, ast.BinOp):
        return template(node.left) + template(node.right)
    return f"‹{short(node)}›"


def short(node: ast.AST) -> str:
    """The last name in an expression."""
    names = [x.id if isinstance(x, ast.Name) else x.attr for x in ast.walk(node)
             if isinstance(x, ast.Name | ast.Attribute)]  # fmt: skip
    return names[0] if names else "..."


def errors() -> dict[str, list[tuple[str, str, str]]]:
    """Messages by class: found, expected, to fix it."""
    found: dict[str, list[tuple[str, str, str]]] = {kind: [] for kind in KINDS}
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and len(node.args) == 3:
                kind = getattr(node.func, "id", "")
                kind = "SettingError" if kind == "error" else kind
                if kind in found:
                    parts = [re.sub(r"\s+", " ", template(x)).strip() for x in node.args]
                    if (parts[0], parts[1], parts[2]) not in found[kind]:
                        found[kind].append((parts[0], parts[1], parts[2]))
    return found


def page() -> str:
    """The page."""
    lines = [
        "# Errors", "",
        "Every error is a `pyro_amortized.AmortizedError`, which is a `ValueError`.",
        "Its message says what was found, what was expected, and how to fix it.",
        "This page lists all errors by class.",
        "The parts in ‹...› are filled in when the error is raised.", "",
    ]  # fmt: skip
    for kind, about in KINDS.items():
        lines += [f"## {kind}", "", about, ""]
        for j, (found, expected, fix) in enumerate(sorted(errors()[kind]), 1):
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
