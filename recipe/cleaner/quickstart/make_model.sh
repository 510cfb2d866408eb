#!/usr/bin/env bash
# Makes the quick start's cold-start checkpoint (model/ beside this script) again: starts a code-judge of its own, lets a
# noisy teacher talk to it, fine-tunes a 0.65M-parameter Qwen2 on the conversations, measures it, and stops the judge.
#
#   bash recipe/cleaner/quickstart/make_model.sh            # the checkpoint in the tree
#   OUT=/tmp/model SEED=1 STEPS=2000 bash .../make_model.sh  # another one
#
# Environment: OUT (folder), SEED (0), STEPS (optimizer steps, 1000), MINUTES (limit), TRACES (teacher conversations),
# EVALUATE (problems measured), PYTHON (default: the repository's .venv), CODE_JUDGE_URL (use a running judge).
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$(cd "$here/../../.." && pwd)"
PYTHON="${PYTHON:-$root/.venv/bin/python}"
case "${1:-}" in
  -h | --help) sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
  ?*) echo "error: unknown argument '$1'; settings are environment variables, see --help" >&2; exit 2 ;;
esac
[[ -x "$PYTHON" ]] || { echo "error: no Python at $PYTHON; set PYTHON, or run the quick start once" >&2; exit 2; }

export PYTHONPATH="$root/verl${PYTHONPATH:+:$PYTHONPATH}"
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false

scratch="$(mktemp -d)"
judge=""
clean_up() {
  if [[ -n "$judge" ]]; then kill "$judge" 2>/dev/null || true; wait "$judge" 2>/dev/null || true; fi
  rm -rf "$scratch"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

if [[ -z "${CODE_JUDGE_URL:-}" ]]; then
  (cd "$root/code-judge" && PYTHONPATH=. MAX_EXECUTION_TIME=4 exec "$PYTHON" -m app.cli serve \
    --port 0 --workers 2 --die-with-parent --ready-file "$scratch/url" >"$scratch/judge.log" 2>&1) &
  judge=$!
  for _ in $(seq 300); do
    [[ -s "$scratch/url" ]] && break
    kill -0 "$judge" 2>/dev/null || { cat "$scratch/judge.log" >&2; echo "error: code-judge did not start" >&2; exit 1; }
    sleep 0.2
  done
  [[ -s "$scratch/url" ]] || { cat "$scratch/judge.log" >&2; echo "error: code-judge is not ready after 60 s" >&2; exit 1; }
  CODE_JUDGE_URL="$(cat "$scratch/url")"
  export CODE_JUDGE_URL
fi

"$PYTHON" -m cleaner.coldstart --model tiny --out "${OUT:-$here/model}" --seed "${SEED:-0}" \
  --steps "${STEPS:-1000}" --minutes "${MINUTES:-60}" --traces "${TRACES:-8000}" --evaluate "${EVALUATE:-600}"
