"""Progress bars are shown on a terminal and nowhere else."""

import io
import sys

import pytest

from pyro_amortized.runtime.progress import progress_bar


class Terminal(io.StringIO):
    def __init__(self, is_terminal):
        super().__init__()
        self.is_terminal = is_terminal

    def isatty(self):
        return self.is_terminal


@pytest.mark.parametrize(
    ("wanted", "is_terminal", "shown"),
    [(True, True, True), (True, False, False), (False, True, False)],
)
def test_bars_are_shown_if_wanted_and_on_a_terminal(monkeypatch, wanted, is_terminal, shown):
    stream = Terminal(is_terminal)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    with progress_bar(wanted, total=3, desc="simulating", file=stream) as bar:
        for _ in range(3):
            bar.update()
    assert ("simulating" in stream.getvalue()) == shown
