"""Lists in sentences end where they become long."""

import pytest

from pyro_amortized.runtime.short_lists import first_few


@pytest.mark.parametrize(
    ("words", "expected"),
    [([], ""), (["a"], "a"), (["a", "b"], "a, b"), (["a", "b", "c"], "a, b, ...")],
)
def test_more_words_than_the_number_become_dots(words, expected):
    assert first_few(words, 2) == expected


def test_the_dots_have_the_separator():
    assert first_few(("a", "b"), 1, "; ") == "a; ..."
