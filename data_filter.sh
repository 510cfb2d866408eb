#!/usr/bin/env bash
# Keep training rows by how often a model solved them: bash data_filter.sh --help
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PYTHON=${PYTHON:-$ROOT/.venv/bin/python}
[ -x "$PYTHON" ] || PYTHON=$(command -v python3) || { echo "data_filter: no python3 found; set PYTHON." >&2; exit 2; }
PYTHONPATH=$ROOT/verl${PYTHONPATH:+:$PYTHONPATH} exec "$PYTHON" -m cleaner.data.filter "$@"
