"""Folders that tests read from."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
TESTS = ROOT / "tests"
SHARED = ROOT.parent / "shared" / "references"
