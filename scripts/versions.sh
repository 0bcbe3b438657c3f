#!/usr/bin/env bash
# The quick tests under the oldest and the newest releases that pyproject.toml allows.
#
#     make versions            all that this machine can install
#     ROWS="3.11-oldest" make versions
#
# A row is a Python and a set of releases. Environments are kept in .versions/, and made again when
# pyproject.toml or requirements/oldest.txt is newer. A Python that is not there is said and skipped.
set -uo pipefail
cd "$(dirname "$0")/.."
ROWS=${ROWS:-"3.11-oldest 3.11-pinned 3.12-newest 3.13-newest"}
QUICK="tests/test_cohort.py tests/test_structure.py tests/test_flows.py tests/test_spline.py
  tests/test_importance.py tests/test_isolation.py tests/test_store.py tests/test_tables.py
  tests/test_guide.py tests/test_marginal.py tests/test_diagnostics.py tests/test_report.py
  tests/test_numerics.py tests/test_invariances.py"

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
    echo "$row: no Python $version here, skipped"
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
  # Old releases warn of what has changed since: only our own tests' errors count here.
  if "$where/bin/python" -m pytest -q -p no:cacheprovider -W default $QUICK; then
    echo "$row: passed"
  else
    echo "$row: FAILED"
    failed=1
  fi
done
exit $failed
