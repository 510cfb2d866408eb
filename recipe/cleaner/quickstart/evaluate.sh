#!/usr/bin/env bash
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
cd "$ROOT"

usage() {
    cat <<'TEXT'
usage: [VARIABLE=value ...] bash recipe/cleaner/quickstart/evaluate.sh [verl or cleaner overrides ...]

Evaluates a checkpoint of the quick start on its validation problems, on a CPU, with everything real: without look-ahead
(failing calls stay in the history), then with it, and prints both side by side. Trains nothing. A run that was stopped
goes on where it was: start it again with the same settings.

  LOOKAHEAD="0 1"     what to evaluate: 0 without look-ahead, 1 with it
  SAMPLES=4           samples of each problem
  PROBLEMS=32         validation problems, at most 128
  SEED=1              seed of problems, sampling and rollback; that of the training, to get its validation problems
  MODEL_PATH          a Hugging Face model folder (default: the quick start's cold-started model)
  RESUME_FROM         a checkpoint of verl's instead, OUTPUT_DIR/checkpoints/global_step_N of a quick start
  OUTPUT_DIR=output/evaluation
  CODE_JUDGE_URL      use a running code-judge instead of starting one
  DRY_RUN=0           1 prints and checks the resolved configuration, and stops

  bash recipe/cleaner/quickstart/evaluate.sh
  MODEL_PATH=output/quickstart/huggingface OUTPUT_DIR=output/trained bash recipe/cleaner/quickstart/evaluate.sh
  .venv/bin/cleaner eval-report output/evaluation/without output/trained/without --name before --name after
TEXT
}
case ${1:-} in -h | --help) usage; exit 0 ;; esac

LOOKAHEAD=${LOOKAHEAD:-0 1}
SAMPLES=${SAMPLES:-4} PROBLEMS=${PROBLEMS:-32} SEED=${SEED:-1} DRY_RUN=${DRY_RUN:-0}
for number in SAMPLES PROBLEMS SEED; do
    [[ ${!number} =~ ^[0-9]+$ ]] || { echo "evaluate: $number=${!number} must be a whole number." >&2; exit 2; }
done
[ "$SAMPLES" -ge 1 ] && [ "$PROBLEMS" -ge 1 ] || { echo "evaluate: SAMPLES and PROBLEMS must be at least 1." >&2; exit 2; }
for choice in $LOOKAHEAD; do
    case $choice in 0 | 1) ;; *) echo "evaluate: LOOKAHEAD=$LOOKAHEAD may hold 0 and 1." >&2; exit 2 ;; esac
done
OUTPUT_DIR=$(realpath -m "${OUTPUT_DIR:-output/evaluation}")
PY=$ROOT/.venv/bin/python
[ -x "$PY" ] || { echo "evaluate: $PY is missing; run bash recipe/cleaner/setup_cpu.sh first." >&2; exit 2; }

# Everything that this script starts is stopped when it ends, however it ends.
RECIPE=evaluate PYTHON=$PY
# shellcheck source=../services.sh
. recipe/cleaner/services.sh
# shellcheck source=inputs.sh
. recipe/cleaner/quickstart/inputs.sh
RUN_PID=''
stop_all() {
    local status=$?
    trap '' INT TERM
    trap - EXIT
    stop_process "$RUN_PID" 20
    stop_process "$JUDGE_PID" 20
    exit "$status"
}
trap stop_all EXIT
trap 'echo "evaluate: stopping; the same command goes on with what is left."; exit 130' INT
trap 'exit 143' TERM

export VERL_PLATFORM=${VERL_PLATFORM:-cpu} HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false TQ_NUM_THREADS=2
export OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive
export RAY_USAGE_STATS_ENABLED=0 PYTHONUNBUFFERED=1 PYTHONHASHSEED=0 RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=0

ROWS=$(rows_folder "$SEED")
if [ ! -f "$ROWS/val.parquet" ]; then
    echo "evaluate: making problems"
    make_rows "$ROWS" "$SEED"
fi
MODEL_DIR=$(realpath -m "${MODEL_PATH:-recipe/cleaner/quickstart/model}")
export ROWS MODEL_DIR RECIPE_DIR=$ROOT/recipe/cleaner

if [ "$DRY_RUN" = 0 ]; then mkdir -p "$OUTPUT_DIR/logs"; fi
if [ "$DRY_RUN" = 0 ] && [ -z "${CODE_JUDGE_URL:-}" ]; then
    export MAX_EXECUTION_TIME=${MAX_EXECUTION_TIME:-4}
    start_judge
fi

RESULTS=() TOP=$OUTPUT_DIR
for choice in $LOOKAHEAD; do
    name=$([ "$choice" = 1 ] && echo with || echo without)
    OUTPUT_DIR=$TOP/$name
    export OUTPUT_DIR
    RUN=("$PY" -m cleaner.main --config-dir "$RECIPE_DIR" --config-name quickstart
        trainer.val_only=true cleaner.seed="$SEED" data.val_max_samples="$PROBLEMS" data.validation_shuffle=false
        actor_rollout_ref.rollout.val_kwargs.n="$SAMPLES" cleaner.record=false
        cleaner.saar.rollback_in_validation="$([ "$choice" = 1 ] && echo true || echo false)")
    if [ -n "${RESUME_FROM:-}" ]; then
        RUN+=(trainer.resume_mode=resume_path trainer.resume_from_path="$(realpath -m "$RESUME_FROM")")
    fi
    if [ "$DRY_RUN" = 1 ]; then
        DRY_RUN=1 "${RUN[@]}" "$@"
        continue
    fi
    echo "evaluate: $name look-ahead, $PROBLEMS problems x $SAMPLES samples"
    setsid "${RUN[@]}" "$@" >"$TOP/logs/$name.log" 2>&1 &
    RUN_PID=$!
    status=0
    wait "$RUN_PID" || status=$?
    RUN_PID=''
    if [ "$status" -ne 0 ]; then
        echo "evaluate: it ended with status $status; the end of $TOP/logs/$name.log:" >&2
        tail -n 25 "$TOP/logs/$name.log" >&2
        exit "$status"
    fi
    RESULTS+=("$OUTPUT_DIR")
done
[ "$DRY_RUN" = 1 ] || "$ROOT/.venv/bin/cleaner" eval-report "${RESULTS[@]}"
