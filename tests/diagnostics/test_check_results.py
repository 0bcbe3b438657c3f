"""The verdict on several p-values together."""

import pytest

from pyro_amortized.diagnostics.check_results import OTHER_PAGE, PAGES, Check, check_p_values
from tests.paths import ROOT


@pytest.mark.parametrize(
    ("smallest", "status"), [(0.003, "passed"), (0.002, "look"), (0.0004, "failed")]
)
def test_the_smallest_p_value_is_corrected_for_the_number_of_tests(smallest, status):
    check = check_p_values("ranks", {"a": 0.9, "b": smallest}, "{} deviates.", "Train longer.")
    assert check.status == status
    assert check.value == pytest.approx(2 * smallest)
    expected = "No deviation was found." if status == "passed" else "b deviates. Train longer."
    assert check.words == expected


def test_a_finding_says_how_sure_it_is_and_where_to_read():
    check = check_p_values("residuals of y", {"a": 0.9, "b": 1e-5}, "{} deviates.", "Look.")
    assert "failed, p = 2e-05 of 2 tests together" in check.finding
    assert check.finding.endswith("See the documentation page `statistical_models`.")
    known = Check("identity of individuals", "look", 1, "Twice.", "model")
    assert known.finding == (
        "identity of individuals (look): Twice. See the documentation page `from_table`."
    )


def test_the_pages_exist():
    for page in {*PAGES.values(), OTHER_PAGE}:
        assert (ROOT / "docs" / f"{page}.md").is_file()
