"""The layers of the library as a picture, from the import contract: ``scripts/house.py [--check]``.

What stands higher may import what stands below it, never the other way round; what stands side by
side does not know of each other.
"""

import argparse
import ast
import tomllib
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]
PICTURE, PAGE = ROOT / "docs" / "figures" / "house.svg", ROOT / "docs" / "house.md"
WIDTH, ROW, GAP = 900, 34, 8


def layers() -> list[list[str]]:
    """Modules side by side, from the top."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    contract = project["tool"]["importlinter"]["contracts"][0]
    return [[name.strip() for name in row.split("|")] for row in contract["layers"]]


def purpose(name: str) -> str:
    """The first sentence of a module's docstring."""
    path = ROOT / "pyro_amortized" / f"{name}.py"
    if not path.is_file():
        path = ROOT / "pyro_amortized" / name / "__init__.py"
    doc = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    first = " ".join(doc.split("\n\n")[0].split())
    return first.split(": ")[0].rstrip(".:") if len(first) > 140 else first.rstrip(".")


def picture() -> str:
    """The SVG."""
    rows, y, parts = layers(), 10, []
    for row in rows:
        width = (WIDTH - 20 - GAP * (len(row) - 1)) / len(row)
        for j, name in enumerate(row):
            x = 10 + j * (width + GAP)
            parts.append(
                f'<rect x="{x:.0f}" y="{y}" width="{width:.0f}" height="{ROW - 8}" rx="4" '
                'fill="#f3efe9" stroke="#1f2a44"/>'
                f'<text x="{x + width / 2:.0f}" y="{y + 17}" text-anchor="middle">'
                f"{escape(name)}</text>"
            )
        y += ROW
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 4}" '
        'font-family="sans-serif" font-size="12" fill="#1f2a44">'
        f'<rect width="100%" height="100%" fill="#ffffff"/>{"".join(parts)}</svg>\n'
    )


def page() -> str:
    """The page."""
    lines = [
        "# The house",
        "",
        "The layers of the library, from the import contract that `make check` holds "
        "(`[tool.importlinter]` in `pyproject.toml`). What stands higher may import what stands "
        "below it, never the other way round; what stands side by side does not know of each other.",
        "",
        "```{image} figures/house.svg",
        ":alt: Layers of the library, from the command line at the top to the errors at the bottom",
        "```",
        "",
        "| module | what it is |",
        "|---|---|",
    ]
    for row in layers():
        lines += [f"| `{name}` | {purpose(name)} |" for name in row]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    made = {PICTURE: picture(), PAGE: page()}
    if parser.parse_args().check:
        old = [p.name for p, text in made.items() if p.read_text("utf-8") != text]
        if old:
            raise SystemExit(f"not up to date: {old}: run scripts/house.py")
        return
    for path, text in made.items():
        path.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
