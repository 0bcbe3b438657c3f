#!/usr/bin/env bash
# The quick tests under the oldest and the newest releases that pyproject.toml allows.
#
#     make versions            all that this machine can install
#     ROWS="3.11-oldest" make versions
#
# A row is a version of Python and a set of releases. Environments are kept in .versions/. They are
# made again when pyproject.toml or requirements/oldest.txt is newer. A version of Python that is not
# installed is reported and skipped.
set -uo pipefail
cd "$(dirname "$0")/.."
ROWS=${ROWS:-"3.11-oldest 3.11-pinned 3.12-newest 3.13-newest"}
QUICK="tests/cohort/test_cohort.py tests/model/test_program_reader.py tests/model/test_refused_programs.py tests/networks/test_conditional_flow.py tests/networks/test_rational_quadratic_spline.py
  tests/sampling/test_importance_weights.py tests/runtime/test_isolation.py tests/training/simulation/test_shard_store.py tests/nlme/tables/test_table_reader.py tests/nlme/tables/test_refused_tables.py tests/nlme/tables/test_table_round_trips.py
  tests/guide/test_pyro_guide.py tests/population/test_likelihood_estimate.py tests/population/test_collapsed_model.py tests/diagnostics/guide_calibration/test_calibration.py tests/diagnostics/export/test_arviz_export.py tests/diagnostics/reports/test_html_report.py
  tests/system/test_numerical_edges.py tests/system/test_invariances.py"

find_python() {  # 3.12 -> an interpreter
  for candidate in "python$1" "$HOME"/.pyenv/versions/"$1".*/bin/python; do
    if command -v "$candidate" > /dev/null && "$candidate" -c \
      "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$1')" 2> /dev/null; then
      command -v "$candidate"
      return
    fi
  done
}

failed=0
for row in $ROWS; do
  version=${row%-*} kind=${row#*-} where=.versions/$row
  python=$(find_python "$version")
  if [ -z "$python" ]; then
    echo "$row: Python $version is not installed, skipped"
    continue
  fi
  stamp=$where/.installed
  if [ ! -f "$stamp" ] || [ pyproject.toml -nt "$stamp" ] || [ requirements/oldest.txt -nt "$stamp" ]; then
    constraints=
    [ "$kind" = oldest ] && constraints="-c requirements/oldest.txt"
    [ "$kind" = pinned ] && constraints="-c requirements/constraints.txt"
    torch=torch
    [ "$kind" = newest ] && torch="torch>=2.13"
    "$python" -m venv "$where" \
      && "$where/bin/python" -m pip install -q --disable-pip-version-check $constraints "$torch" \
      && "$where/bin/python" -m pip install -q --disable-pip-version-check $constraints -e ".[test]" \
      && touch "$stamp" || { echo "$row: could not be installed"; failed=1; continue; }
  fi
  "$where/bin/python" - << 'PYTHON'
import sys
from importlib.metadata import version
names = ("torch", "pyro-ppl", "arviz", "numpy", "pandas", "scipy", "xarray")
print(f"Python {sys.version.split()[0]}:", ", ".join(f"{n} {version(n)}" for n in names), flush=True)
PYTHON
  # Old releases warn of later changes, so warnings are not errors here.
  if "$where/bin/python" -m pytest -q -p no:cacheprovider -W default $QUICK; then
    echo "$row: passed"
  else
    echo "$row: FAILED"
    failed=1
  fi
done
exit $failed
