r"""Parts of an HTML page: page, sections, tables, lists and figures.

All functions give HTML text. Text that comes from data or models is escaped. The page has no script
and refers to no other file: figures are embedded as PNG. It follows the light or dark setting of
the reader; figures have a white background.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import pandas

STYLE = """
:root { color-scheme: light dark; --text: #1f2430; --back: #ffffff; --line: #d5d8de;
  --soft: #f3f4f6; --link: #1f4e8c; }
@media (prefers-color-scheme: dark) { :root { --text: #e6e8ec; --back: #16181d; --line: #3a3f4a;
  --soft: #22262e; --link: #9cc1f2; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 70rem; color: var(--text);
  background: var(--back); font: 16px/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.2; } h2 { margin-top: 2.2rem; font-size: 1.25rem; }
a { color: var(--link); }
nav a { margin-right: 0.9rem; }
.verdict { white-space: pre-wrap; border-left: 4px solid #c8553d; background: var(--soft);
  padding: 0.7rem 1rem; }
.verdict.passed { border-color: #4a8f5a; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: 0.25rem 0.7rem; text-align: right; }
th:first-child, td:first-child, .words { text-align: left; }
td { white-space: nowrap; }
td.words { white-space: normal; min-width: 14rem; }
.wide { margin: 1rem 0; }
figure { margin: 1rem 0; } figure img, figure svg { max-width: 100%; height: auto;
  background: #ffffff; border-radius: 4px; }
figcaption { font-size: 0.9rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.2rem 1rem; }
dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 30rem) { dl { grid-template-columns: 1fr; } dt { font-weight: 600; } }
"""


@dataclass(frozen=True)
class Section:
    r"""A section of a page.

    Args:
        anchor: Anchor of its address.
        title: Heading, plain text.
        body: HTML.
    """

    anchor: str
    title: str
    body: str


def html_page(title: str, sections: Sequence[Section]) -> str:
    r"""A page with a list of links to its sections.

    Args:
        title: Heading, plain text.
        sections: The sections.
    """
    links = " ".join(f'<a href="#{s.anchor}">{escape(s.title)}</a>' for s in sections)
    body = "".join(
        f'<section id="{s.anchor}"><h2>{escape(s.title)}</h2>{s.body}</section>' for s in sections
    )
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>"
        f"<h1>{escape(title)}</h1><nav>{links}</nav>{body}</body></html>\n"
    )


def html_figure(caption: str, figure: Any) -> str:
    r"""A figure with its caption.

    Args:
        caption: Plain text.
        figure: A ``matplotlib.figure.Figure``.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    data = base64.b64encode(buffer.getvalue()).decode()
    text = escape(caption)
    return (
        f'<figure><img alt="{text}" src="data:image/png;base64,{data}">'
        f"<figcaption>{text}</figcaption></figure>"
    )


def html_list(rows: Sequence[tuple[str, str]]) -> str:
    r"""A list of names and values.

    Args:
        rows: Plain text of each name and value.
    """
    cells = "".join(f"<dt>{escape(a)}</dt><dd>{escape(b)}</dd>" for a, b in rows)
    return f"<dl>{cells}</dl>"


def html_table(table: pandas.DataFrame, text_columns: frozenset[str] = frozenset()) -> str:
    r"""A table; numbers have four significant digits, and NaN is left blank.

    Args:
        table: The table; its index is not shown.
        text_columns: Columns of longer text, which are wrapped and aligned on the left.
    """
    classes = [" class=words" if name in text_columns else "" for name in table.columns]
    head = "".join(
        f'<th scope="col"{css}>{escape(str(name))}</th>'
        for name, css in zip(table.columns, classes, strict=True)
    )
    rows = "".join(
        "<tr>"
        + "".join(f"<td{css}>{_cell(x)}</td>" for x, css in zip(row, classes, strict=True))
        + "</tr>"
        for row in table.itertuples(index=False)
    )
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
        "</div>"
    )


def _cell(x: Any) -> str:
    if isinstance(x, float):
        return "" if x != x else f"{x:.4g}"
    return escape(str(x))
