"""Tables as text."""

from collections.abc import Sequence
from html import escape


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
