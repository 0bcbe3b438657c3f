#!/usr/bin/env bash
# The wheel and the sdist: build them, look through them, install the wheel in a clean environment,
# and run the quickstart from another folder, where no file of the checkout can be imported.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
python=$root/.venv/bin/python
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$python" -m build --outdir "$work/dist" . > "$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }
"$python" scripts/distributions.py "$work/dist"

"$python" -m venv "$work/clean"
pip=("$work/clean/bin/python" -m pip install -q --disable-pip-version-check -c requirements/constraints.txt)
"${pip[@]}" torch
"${pip[@]}" "$work"/dist/*.whl

mkdir "$work/elsewhere"
cp examples/quickstart.py tests/system/quickstart_small.py "$work/elsewhere"
cd "$work/elsewhere"
env -u PYTHONPATH OMP_NUM_THREADS=1 "$work/clean/bin/python" quickstart_small.py "$work/clean"
