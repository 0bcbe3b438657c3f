"""The verdict on several p-values together."""

import pytest

from pyro_amortized.diagnostics.check_results import check_p_values


@pytest.mark.parametrize(
    ("smallest", "status"), [(0.006, "passed"), (0.004, "look"), (0.0004, "failed")]
)
def test_the_smallest_p_value_is_corrected_for_the_number_of_tests(smallest, status):
    check = check_p_values("ranks", {"a": 0.9, "b": smallest}, "{} deviates.", "Train longer.")
    assert check.status == status
    assert check.value == pytest.approx(2 * smallest)
    expected = "No deviation was found." if status == "passed" else "b deviates. Train longer."
    assert check.words == expected
