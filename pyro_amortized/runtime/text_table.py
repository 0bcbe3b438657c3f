"""Tables as text."""

from collections.abc import Sequence


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
