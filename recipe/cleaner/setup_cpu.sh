#!/usr/bin/env bash
# Sets up .venv for a machine without a GPU: torch first, everything else under constraints-cpu.txt.
# Called by quickstart.sh and tests/run.sh; does nothing when .venv is already what the project files ask for, or holds
# an engine for GPUs. The torch that PyPI has for Linux computes on CUDA too.
#
#   PYTHON=python3.11   interpreter to build .venv with (3.11 or 3.12)
#   TORCH_PIP_ARGS      extra arguments for `pip install torch`, e.g. the index that holds CPU builds
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$ROOT"
PYTHON=${PYTHON:-python3}
EXTRAS=${1:-}   # "test" adds what the test suite needs

fail() { echo "setup: $*" >&2; exit 2; }

command -v "$PYTHON" >/dev/null || fail "no $PYTHON found; install Python 3.11 or 3.12, or name one with PYTHON=."
VERSION=$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
case $VERSION in
    3.11 | 3.12) ;;
    *) fail "$PYTHON is Python $VERSION; verl 0.9.1 and CLEANER need 3.11 or 3.12. Name one with PYTHON=." ;;
esac

# The tests of the HTML report drive a browser. Without one they are skipped, and say so.
need_browser() {
    ! { command -v chromium && command -v chromedriver; } >/dev/null || return 0
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "setup: Chromium, for the tests of the HTML report ..."
        local log
        log=$(mktemp)
        if { apt-get update && apt-get install --yes --no-install-recommends chromium chromium-driver; } >"$log" 2>&1
        then
            rm -f "$log"
            return 0
        fi
        tail -n 3 "$log" >&2
        rm -f "$log"
    fi
    echo "setup: no Chromium with chromedriver; tests in a browser are skipped (Debian: apt-get install chromium chromium-driver)."
}
[ -z "$EXTRAS" ] || need_browser

STAMP=.venv/.cleaner-setup
WANTED=$(cat constraints-cpu.txt requirements-test.txt verl/pyproject.toml code-judge/pyproject.toml | cksum)
if [ -f "$STAMP" ] && [ "$(head -n 1 "$STAMP")" = "$WANTED" ] && { [ -z "$EXTRAS" ] || grep -qx test "$STAMP"; }; then
    exit 0
fi

# An engine's torch is another one. Whoever installed it wants it.
for engine in sglang vllm; do
    if compgen -G ".venv/lib/python*/site-packages/$engine" >/dev/null; then
        echo "setup: .venv holds $engine and what it needs; it is left as it is."
        exit 0
    fi
done

[ -d .venv ] || "$PYTHON" -m venv .venv
PIP=(.venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints-cpu.txt)
echo "setup: torch (the CPU build) ..."
# shellcheck disable=SC2086
"${PIP[@]}" ${TORCH_PIP_ARGS:-} torch || fail "pip could not install torch; its message is above."
echo "setup: verl 0.9.1, Ray, code-judge, CLEANER (about two minutes, 2 GiB) ..."
"${PIP[@]}" -e "verl[cpu]" -e code-judge || fail "pip could not install the project; its message is above."
if [ -n "$EXTRAS" ]; then
    "${PIP[@]}" -r requirements-test.txt || fail "pip could not install the test tools; its message is above."
fi
{ echo "$WANTED"; [ -z "$EXTRAS" ] || echo test; } >"$STAMP"
