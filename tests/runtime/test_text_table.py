"""Printed tables of many rows."""

from pyro_amortized.runtime.text_table import MAX_ROWS, NUM_WORST, worst_rows


def test_short_tables_are_whole():
    rows = list(range(MAX_ROWS))
    assert worst_rows(rows, float) == (rows, "")


def test_long_tables_show_the_worst_rows_in_their_order_and_say_so():
    rows = [(7 * i) % 1000 for i in range(1000)]  # every number once, mixed
    shown, words = worst_rows(rows, float)
    assert sorted(shown) == list(range(1000 - NUM_WORST, 1000))
    assert [x for x in rows if x in shown] == shown
    assert f"{NUM_WORST} least certain of 1000" in words
