"""The page needs no other file, and text that comes from data is escaped."""

from dataclasses import replace
from html.parser import HTMLParser

import pytest
from matplotlib.figure import Figure

from pyro_amortized.diagnostics import diagnose, report
from tests.small import unarranged

pytestmark = pytest.mark.slow


class Reader(HTMLParser):
    """Counts tags, collects text and addresses."""

    def __init__(self):
        super().__init__()
        self.tags, self.text, self.addresses, self.open = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [v for k, v in attrs if k in ("src", "href")]
        if tag not in ("meta", "link", "img", "rect", "line", "ellipse", "path"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def page(fit, tmp_path_factory):
    script = "<script>alert(1)</script>"
    cohort = replace(fit.cohort, ids=(script, *fit.cohort.ids[1:]))
    escaped_fit = replace(fit, cohort=cohort)
    diagnosis = diagnose(fit, num_individuals=50, num_draws=100, seed=1)
    path = tmp_path_factory.mktemp("report") / "report.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", unarranged(Figure.savefig))
        assert report(escaped_fit, path, title="A & <b>", diagnosis=diagnosis) is diagnosis
    return path.read_text("utf-8")


def test_the_page_is_self_contained(page):
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    assert "script" not in reader.tags
    outside = [a for a in reader.addresses if not a.startswith(("#", "data:"))]
    assert outside == []
    assert reader.tags.count("img") >= 8
    assert "alt=" in page
    for anchor in ("verdict", "model", "data", "estimates", "individuals", "figures", "versions"):
        assert f'id="{anchor}"' in page


def test_what_comes_from_data_is_text(page):
    reader = Reader()
    reader.feed(page)
    words = "".join(reader.text)
    assert "<script>alert(1)</script>" in words
    assert "A & <b>" in words
    for expected in ("omega[1]", "-2 log likelihood", "ranks, corrected", "torch", "All 40"):
        assert expected in words
