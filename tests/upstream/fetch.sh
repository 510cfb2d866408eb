#!/usr/bin/env bash
# Fetches verl's own tests into .cache/verl-VERSION-tests/. They are in the source distribution only, not in the wheel
# that is installed. Needs .venv (tests/run.sh makes it); does nothing when the tests are there already.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$ROOT"
PIN=tests/upstream/sdist.txt
NAME=$(sed -n 's/^verl==\([^ ]*\).*/verl-\1/p' "$PIN")
TESTS=.cache/$NAME-tests

if cmp -s "$PIN" "$TESTS/sdist.txt"; then
    exit 0
fi
[ -x .venv/bin/python ] || { echo "verl's tests: no .venv yet; run \`bash tests/run.sh\`." >&2; exit 2; }

mkdir -p .cache
SCRATCH=$(mktemp -d .cache/sdist.XXXXXX)
trap 'rm -rf "$SCRATCH"' EXIT
echo "setup: verl's own tests (1.4 MB) ..."
# pip asks a source distribution for its metadata. Without build isolation it does so with the setuptools that torch
# has brought along, and downloads nothing else. The hash is checked before any of verl's files is run.
if ! .venv/bin/python -m pip download --quiet --disable-pip-version-check --no-deps --no-binary verl \
    --no-build-isolation --require-hashes --requirement "$PIN" --dest "$SCRATCH"; then
    cat >&2 <<END
verl's tests: pip could not download the file that $PIN names; its message is above.
  With a network: run \`bash tests/upstream/fetch.sh\` again. It is needed once.
  Without one: get $NAME.tar.gz from PyPI elsewhere, put it into a folder here, and run
      PIP_NO_INDEX=1 PIP_FIND_LINKS=FOLDER bash tests/upstream/fetch.sh
  To run the other tests meanwhile: .venv/bin/python -m pytest --ignore=tests/upstream
END
    exit 2
fi
mkdir "$SCRATCH/unpacked"
tar -xzf "$SCRATCH/$NAME.tar.gz" -C "$SCRATCH/unpacked" --strip-components=1 --no-same-owner "$NAME/tests"
# Written last: a folder without it is fetched anew.
cp "$PIN" "$SCRATCH/unpacked/sdist.txt"
rm -rf "$TESTS"
mv "$SCRATCH/unpacked" "$TESTS"
