"""Progress bars are shown on a terminal and nowhere else."""

import io
import sys

import pytest

from pyro_amortized.runtime.progress import (
    count_step,
    counting_steps,
    progress_bar,
    showing_progress,
)


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


def test_steps_are_counted_by_the_innermost_bar(monkeypatch):
    stream = Terminal(True)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    count_step("nobody counts")
    with showing_progress(True), counting_steps("bootstrap", 2, "replicate"):
        with counting_steps("fit", unit="round"):
            count_step("hidden")
        count_step("first")
        count_step("second")
    text = stream.getvalue()
    assert "bootstrap: 100%" in text
    assert "2/2" in text
    assert "fit" not in text


def test_no_bar_without_a_public_function_that_wants_it(monkeypatch):
    stream = Terminal(True)
    monkeypatch.setattr(sys, "stderr", stream)
    with counting_steps("fit", unit="round"):
        count_step("hidden")
    assert stream.getvalue() == ""
