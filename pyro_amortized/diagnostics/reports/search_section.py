"""The section of a report about the search that found the model."""

from html import escape

from ...applications.model_search import ModelSearch
from .html_elements import Section, html_figure, html_table


def search_section(search: ModelSearch) -> Section:
    """Path, tests, stability and the lines to write into the program."""
    from .. import plots  # matplotlib is an optional dependency

    title = "".join(f"<p>{escape(line)}</p>" for line in search.headline.splitlines())
    table = search.table().drop(columns=["score"])
    path = html_table(table, text_columns=frozenset({"term", "reason", "action"}))
    tests = html_table(search.test_table(), text_columns=frozenset({"term"}))
    figure = html_figure("Path and stability of the search", plots.searched_path(search))
    skipped = "".join(
        f"<p>Not tested: {escape(name)} ({escape(why)}).</p>"
        for name, why in search.skipped.items()
    )
    lines = f"<pre>{escape(search.lines)}</pre>" if search.extension.terms else ""
    return Section("search", "Model search", title + figure + path + tests + skipped + lines)
