#!/usr/bin/env bash
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$ROOT"

usage() {
    cat <<'TEXT'
usage: [VARIABLE=value ...] bash recipe/cleaner/compare.sh [--plan | --report] [overrides of all runs ...]

Compares strategies: every arm on every task with every seed, through the quick start's trainer, each run with the same
budget of generated tokens. Runs that are there are not done again, so the same command goes on after a stop, and more
seeds can be added later. Then writes tables, plots and raw metrics. docs/comparison.md explains how they are computed.

  MODEL=tiny                 smollm2: SmolLM2-135M, cold-started here first (about six minutes), then about a minute a step
  ARMS="baseline saar ..."   arms of recipe/cleaner/compare/arms.yaml (default: all); the baseline is always among them
  TASKS="quickstart ..."     files in recipe/cleaner/compare/tasks (default: all; smollm2: quickstart)
  SEEDS="1 2 3 4 5 6 7 8"    a seed fixes problems, their order and sampling; arms are paired by it
  BUDGET=200000              tokens that a run generates in training, discarded ones and look-aheads included (smollm2: 20000)
  VALIDATIONS=8              validations after equal shares of the budget, besides the one before training (smollm2: 3)
  JOBS=2                     runs at a time, of one thread each; with 1, a run takes two threads (smollm2: 1, of 10 GiB)
  RUN_MINUTES=30             a run that takes longer is stopped and counts as failed
  RETRY_FAILED=0             1 does failed runs again; the earlier tries are kept and reported
  OUTPUT_DIR=docs/results    tables, plots, raw metrics (smollm2: docs/results/smollm2)
  RUNS_DIR=output/compare    the runs themselves (smollm2: output/compare-smollm2)
  CODE_JUDGE_URL             use a running code-judge instead of starting one
  DRY_RUN=0                  1, or --plan: list the runs, what is there, the time left, and check every configuration

  bash recipe/cleaner/compare.sh --plan
  ARMS="saar contrast_gated" TASKS=several SEEDS="1 2" BUDGET=60000 bash recipe/cleaner/compare.sh
TEXT
}
ACTION=run
case ${1:-} in
    -h | --help) usage; exit 0 ;;
    --plan) ACTION=plan; shift ;;
    --report) ACTION=report; shift ;;
    -*) echo "compare: unknown option $1; see --help." >&2; exit 2 ;;
esac
DRY_RUN=${DRY_RUN:-0} RETRY_FAILED=${RETRY_FAILED:-0}
for flag in DRY_RUN RETRY_FAILED; do
    case ${!flag} in 0 | 1) ;; *) echo "compare: $flag=${!flag} must be 0 or 1." >&2; exit 2 ;; esac
done
[ "$DRY_RUN" = 0 ] || ACTION=plan
MODEL=${MODEL:-tiny}
RESULTS=docs/results RUNS=output/compare
case $MODEL in
    tiny) ;;
    smollm2)
        TASKS=${TASKS:-quickstart} RESULTS=$RESULTS/smollm2 RUNS=$RUNS-smollm2
        BUDGET=${BUDGET:-20000} VALIDATIONS=${VALIDATIONS:-3} JOBS=${JOBS:-1}
        ;;
    *) echo "compare: MODEL=$MODEL is unknown; use tiny or smollm2." >&2; exit 2 ;;
esac
ARMS=${ARMS:-} TASKS=${TASKS:-} SEEDS=${SEEDS:-1 2 3 4 5 6 7 8}
BUDGET=${BUDGET:-200000} VALIDATIONS=${VALIDATIONS:-8} JOBS=${JOBS:-2} RUN_MINUTES=${RUN_MINUTES:-30}
for number in BUDGET VALIDATIONS JOBS RUN_MINUTES; do
    [[ ${!number} =~ ^[1-9][0-9]*$ ]] || { echo "compare: $number=${!number} must be a whole number above 0." >&2; exit 2; }
done
for seed in $SEEDS; do
    [[ $seed =~ ^[0-9]+$ ]] || { echo "compare: SEEDS=\"$SEEDS\" must be whole numbers." >&2; exit 2; }
done
RESULTS=$(realpath -m "${OUTPUT_DIR:-$RESULTS}")
RUNS_DIR=$(realpath -m "${RUNS_DIR:-$RUNS}")

bash recipe/cleaner/setup_cpu.sh
PY=$ROOT/.venv/bin/python
RECIPE=compare PYTHON=$PY OUTPUT_DIR=$RUNS_DIR

# shellcheck source=services.sh
. recipe/cleaner/services.sh
# shellcheck source=quickstart/inputs.sh
. recipe/cleaner/quickstart/inputs.sh
COMPARE_PID=''
stop_all() {
    local status=$?
    trap '' INT TERM
    trap - EXIT
    # Its runs get 30 seconds each to stop.
    stop_process "$COMPARE_PID" 90
    stop_process "$JUDGE_PID" 10
    exit "$status"
}
trap stop_all EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

export VERL_PLATFORM=cpu HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false TQ_NUM_THREADS=2
export OMP_WAIT_POLICY=passive RAY_USAGE_STATS_ENABLED=0 WANDB_MODE=disabled PYTHONUNBUFFERED=1 PYTHONHASHSEED=0
export RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=0
# The repeated command, without folders: those are the reader's.
REPEAT="${ARMS:+ARMS=\"$ARMS\" }${TASKS:+TASKS=\"$TASKS\" }SEEDS=\"$SEEDS\" BUDGET=$BUDGET VALIDATIONS=$VALIDATIONS JOBS=$JOBS"
REPEAT="$REPEAT bash recipe/cleaner/compare.sh${*:+ $(printf '%q ' "$@")}"
[ "$MODEL" = tiny ] || REPEAT="MODEL=$MODEL $REPEAT"

if [ "$ACTION" = run ] && [ -z "${CODE_JUDGE_URL:-}" ]; then
    mkdir -p "$RUNS_DIR/logs"
    export MAX_EXECUTION_TIME=${MAX_EXECUTION_TIME:-4}
    start_judge
fi
MODEL_DIR=$ROOT/recipe/cleaner/quickstart/model
if [ "$MODEL" = smollm2 ]; then
    MODEL_DIR=$(smollm2_folder)
    if [ "$ACTION" = run ] && [ ! -f "$MODEL_DIR/config.json" ]; then
        echo "cold start of SmolLM2-135M, a few minutes, cached in $MODEL_DIR"
        make_smollm2 "$MODEL_DIR"
    fi
fi
THREADS=1
[ "$JOBS" -gt 1 ] || THREADS=2
export OMP_NUM_THREADS=$THREADS
read -ra ARMS_LIST <<<"$ARMS"
read -ra TASKS_LIST <<<"$TASKS"
read -ra SEEDS_LIST <<<"$SEEDS"
ARGUMENTS=(--recipe "$ROOT/recipe/cleaner" --runs "$RUNS_DIR" --results "$RESULTS" --cache "$ROOT/.cache/compare"
    --model "$MODEL" --model-folder "$MODEL_DIR" --arms "${ARMS_LIST[@]}" --tasks "${TASKS_LIST[@]}" --seeds "${SEEDS_LIST[@]}"
    --budget "$BUDGET" --validations "$VALIDATIONS" --jobs "$JOBS" --threads "$THREADS" --limit-minutes "$RUN_MINUTES"
    --judge-url "${CODE_JUDGE_URL:-}" --repeat "$REPEAT")
[ "$RETRY_FAILED" = 0 ] || ARGUMENTS+=(--retry-failed)
"$PY" -m cleaner.compare "$ACTION" "${ARGUMENTS[@]}" -- "$@" &
COMPARE_PID=$!
status=0
wait "$COMPARE_PID" || status=$?
COMPARE_PID=''
exit "$status"
