#!/usr/bin/env bash
# Sets everything up and runs every test. Arguments go to pytest: `bash tests/run.sh tests/saar -k splice`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash recipe/cleaner/setup_cpu.sh test
bash tests/upstream/fetch.sh
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
exec .venv/bin/python -m pytest "$@"
