"""Readers of arbitrary bytes give an error of three parts or a complete result.

Every seed of ``tests/corpus`` is tried; Hypothesis mutates them further. ``python -m tests.fuzz``
runs for minutes.
"""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import fuzz

QUICK = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def readers(linear_guide, fit, tmp_path_factory):
    return fuzz.make_readers(linear_guide, fit, tmp_path_factory.mktemp("fuzz"))


@pytest.mark.parametrize("path", sorted(fuzz.CORPUS.iterdir()), ids=lambda p: p.name)
def test_seeds_of_the_corpus(path, readers):
    fuzz.attempt(readers["table"], path.read_bytes())


@QUICK
@given(content=st.binary(max_size=400))
def test_tables_of_any_bytes(content, readers):
    fuzz.attempt(readers["table"], content)


CELLS = st.one_of(
    st.sampled_from(["", ".", "1", "-1", "1e400", "nan", "inf", "=1+1", "../../x", "'", '"']),
    st.floats(allow_nan=True).map(str),
    st.text(max_size=6),
)
COLUMNS = ["ID", "TIME", "DV", "AMT", "EVID", "MDV", "RATE", "SS", "II", "ADDL", "CMT", "CENS"]


@QUICK
@given(
    columns=st.lists(st.sampled_from(COLUMNS), min_size=3, max_size=8, unique=True),
    cells=st.lists(st.lists(CELLS, min_size=8, max_size=8), min_size=1, max_size=6),
)
def test_tables_of_any_cells(columns, cells, readers):
    rows = [",".join(row[: len(columns)]) for row in cells]
    fuzz.attempt(readers["table"], "\n".join([",".join(columns), *rows]).encode("utf-8"))


@pytest.mark.slow
@QUICK
@given(seed=st.integers(0, 2**32))
@pytest.mark.parametrize("kind", ["weights", "description", "fit", "shard"])
def test_files_with_flipped_bytes(kind, seed, readers):
    reader = readers[kind]
    fuzz.attempt(reader, fuzz.mutated(reader.seed, seed))
