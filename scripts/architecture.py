"""The table of packages and the picture of the layers: ``scripts/architecture.py [--check]``.

Both are made from the import contract in ``pyproject.toml`` and from the first sentence of the
docstring of each package. The rest of ``docs/architecture.md`` is written by hand; every module
that it names must exist.
"""

import argparse
import ast
import re
import tomllib
from html import escape
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "pyro_amortized"
PICTURE, PAGE = ROOT / "docs" / "figures" / "layers.svg", ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- made by scripts/architecture.py -->", "<!-- end of the made part -->"
WIDTH, ROW, GAP, MARGIN = 720, 42, 10, 10


def contracts() -> list[dict[str, Any]]:
    """The contracts that import-linter checks."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    stated: list[dict[str, Any]] = project["tool"]["importlinter"]["contracts"]
    return stated


def layers() -> list[list[str]]:
    """Names side by side, from the highest layer."""
    rows = next(contract for contract in contracts() if contract["type"] == "layers")["layers"]
    return [[name.strip() for name in row.split("|")] for row in rows]


def purpose(name: str) -> str:
    """The first sentence of a docstring as Markdown."""
    path = PACKAGE / f"{name}.py"
    if not path.is_file():
        path = PACKAGE / name / "__init__.py"
    doc = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    first = re.split(r"(?<=\.)\s", " ".join(doc.split("\n\n")[0].split()))[0]
    first = re.sub(r":math:`([^`]*)`", r"$\1$", first)
    first = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", first)
    return first.replace("``", "`").replace("|", r"\|")


def table() -> list[str]:
    """The packages, from the highest layer."""
    lines = ["| layer | package | purpose | may import |", "|---|---|---|---|"]
    for number, row in zip(range(len(layers()), 0, -1), layers(), strict=True):
        below = (
            f"layers 1 to {number - 1}" if number > 2 else "layer 1" if number == 2 else "nothing"
        )
        lines += [f"| {number} | `{name}` | {purpose(name)} | {below} |" for name in row]
    rules = [contract["name"] for contract in contracts() if contract["type"] != "layers"]
    return [*lines, "", "The contract has further rules:", "", *(f"- {rule}." for rule in rules)]


def picture() -> str:
    """The layers as SVG."""
    y, parts = MARGIN, []
    for row in layers():
        width = (WIDTH - 2 * MARGIN - GAP * (len(row) - 1)) / len(row)
        for j, name in enumerate(row):
            x = MARGIN + j * (width + GAP)
            parts.append(
                f'<rect x="{x:.0f}" y="{y}" width="{width:.0f}" height="{ROW - GAP}" rx="4" '
                'fill="#f3efe9" stroke="#1f2a44"/>'
                f'<text x="{x + width / 2:.0f}" y="{y + 21}" text-anchor="middle">'
                f"{escape(name)}</text>"
            )
        y += ROW
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" '
        'font-family="sans-serif" font-size="14" fill="#1f2a44">'
        f'<rect width="100%" height="100%" fill="#ffffff"/>{"".join(parts)}</svg>\n'
    )


def page() -> str:
    """The page with the part that is made."""
    text = PAGE.read_text("utf-8")
    before, rest = text.split(BEGIN)
    return "\n".join([f"{before}{BEGIN}", "", *table(), "", f"{END}{rest.split(END)[1]}"])


def unknown_modules() -> list[str]:
    """Names in backquotes that look like modules of a package and are none."""
    packages = {name for row in layers() for name in row}
    names = re.findall(r"`((?:\w+\.)+\w+)`", PAGE.read_text("utf-8"))
    paths = {name: PACKAGE.joinpath(*name.split(".")) for name in names}
    return [
        name
        for name, path in paths.items()
        if name.split(".")[0] in packages
        and not name.endswith(".py")
        and not (path.is_dir() or path.with_suffix(".py").is_file())
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    made = {PICTURE: picture(), PAGE: page()}
    if unknown := unknown_modules():
        raise SystemExit(f"docs/architecture.md names modules that do not exist: {unknown}")
    if parser.parse_args().check:
        old = [p.name for p, text in made.items() if p.read_text("utf-8") != text]
        if old:
            raise SystemExit(f"not up to date: {old}: run scripts/architecture.py")
        return
    for path, text in made.items():
        path.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
