"""Tables as text."""

from collections.abc import Callable, Sequence
from html import escape
from typing import TypeVar

Row = TypeVar("Row")
# A printed table of more rows shows the second number of them: the summary of 1,000 individuals was
# a thousand lines.
MAX_ROWS, NUM_WORST = 150, 20
# Numbers that four decimals show with two significant digits or more, and in a narrow column.
SMALLEST, LARGEST = 1e-3, 1e6


def number_text(x: float) -> str:
    r"""A number with four decimals; with an exponent where these would be zeros, or where there are
    more than six digits before them: rates of 2e-6 per second are estimates, too.

    Example:
        >>> [number_text(x) for x in (0.4589, -12.3, 0.0, 0.000213, 2e-06, 4.7612e12)]
        ['0.4589', '-12.3000', '0.0000', '0.000213', '2e-06', '4.76e+12']
    """
    few, many = abs(x) >= SMALLEST, abs(x) < LARGEST
    return f"{x:.3g}" if abs(x) < float("inf") and x and not (few and many) else f"{x:.4f}"


def text_table(rows: Sequence[tuple[str, ...]], align: str = ">") -> str:
    r"""Rows of cells as lines of text, in columns of equal width.

    Args:
        rows: The rows, the heading first.
        align: ``">"`` or ``"<"``: where the cells stand in all columns but the first.
    """
    widths = [max(len(row[j]) for row in rows) for j in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            f"{row[0]:<{widths[0]}}",
            *(f"{c:{align}{w}}" for c, w in zip(row[1:], widths[1:], strict=True)),
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def html_rows(title: str, rows: Sequence[tuple[str, ...]]) -> str:
    r"""Rows of cells as an HTML table for notebooks; texts are escaped.

    Args:
        title: The caption.
        rows: The rows, the heading first.

    Example:
        >>> html_rows("a < b", [("x", "1")])
        '<table><caption>a &lt; b</caption><tr><th>x</th><th>1</th></tr></table>'
    """
    heading = "".join(f"<th>{escape(x)}</th>" for x in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows[1:]
    )
    return f"<table><caption>{escape(title)}</caption><tr>{heading}</tr>{body}</table>"


def worst_rows(rows: Sequence[Row], badness: Callable[[Row], float]) -> tuple[list[Row], str]:
    """The rows that a printed table shows, in their order: all, or of a long table the worst; and
    words that say so, to be added to a sentence.
    """
    if len(rows) <= MAX_ROWS:
        return list(rows), ""
    worst = sorted(range(len(rows)), key=lambda i: badness(rows[i]), reverse=True)[:NUM_WORST]
    words = f"; shown are the {NUM_WORST} least certain of {len(rows)} (`.individuals` has all)"
    return [rows[i] for i in sorted(worst)], words
