"""Items that belong to rows."""

import torch

from pyro_amortized.numerics.row_groups import RowGroups

COUNTS = torch.tensor([1, 3, 2])
VALUES = torch.tensor([[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]]).log()


def test_items_are_summed_by_row():
    groups = RowGroups(COUNTS)
    assert groups.rows.tolist() == [0, 1, 1, 1, 2, 2]
    assert groups.first.tolist() == [0, 1, 4]
    assert not groups.is_one_each
    assert torch.allclose(groups.logsumexp(VALUES).exp(), torch.tensor([[0.0, 6.0, 9.0]]))
    assert groups.padded(VALUES, -1.0).shape == (1, 3, 3)
    assert groups.padded(VALUES, -1.0)[0, 2, 2] == -1.0


def test_rows_may_be_taken_repeatedly():
    groups, items = RowGroups(COUNTS).take(torch.tensor([2, 1, 2]))
    assert items.tolist() == [4, 5, 1, 2, 3, 4, 5]
    assert groups.rows.tolist() == [0, 0, 1, 1, 1, 2, 2]
    none, nothing = RowGroups(COUNTS).take(torch.zeros(0, dtype=torch.long))
    assert len(nothing) == 0
    assert none.is_one_each
