#!/usr/bin/env bash
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$ROOT"

usage() {
    cat <<'TEXT'
usage: [VARIABLE=value ...] bash scripts/gpu_check.sh [--offline] [overrides of verl's or CLEANER's keys ...]

Tells whether CLEANER works on this machine's GPU: device, `cleaner doctor`, judge, and for each engine and number format
a few training steps of the quick start with rollback on, server and actor compared. Every check runs by itself, with a
time limit; one table at the end says what failed, why and what to do. Exit status 1 if something failed. docs/gpu.md
explains every row.

  MODEL=quickstart    or smollm2 (cold-started on the CPU the first time, some minutes), or the folder of a model
  DTYPES="float16 bfloat16"
                      number formats of actor and server (on a CPU: bfloat16); float32 is there too
  ENGINES="hf_server sglang vllm"
                      rollout servers; an engine that is not installed is skipped
  STEPS=3             training steps of each run
  TIME_LIMIT=900      seconds that one run may take
  OUTPUT_DIR=output/gpu_check
                      results, logs and runs; result.json holds the table
  PYTHON              interpreter with CLEANER (default: .venv/bin/python)
  CODE_JUDGE_URL      use a running code-judge instead of starting one
  VERL_PLATFORM       cpu tries the script without a GPU; it then says nothing about one
  DRY_RUN=0           1 checks every run's configuration and starts nothing

Without a network:
  --offline           pip never looks at an index
  WHEELS=DIR          folder with packages: pip takes them from there only. Without .venv it is made of them
  STACK=cpu           what is installed then: verl[cpu] (our own server; on CUDA too), sglang or vllm
  MODELS=DIR          folder with models: MODEL=smollm2 is DIR/smollm2 if that exists, MODEL=NAME is DIR/NAME

  bash scripts/gpu_check.sh
  MODEL=smollm2 DTYPES=bfloat16 ENGINES=hf_server bash scripts/gpu_check.sh
  WHEELS=/media/wheels MODELS=/media/models MODEL=smollm2 bash scripts/gpu_check.sh --offline
  VERL_PLATFORM=cpu bash scripts/gpu_check.sh
TEXT
}

fail() { echo "gpu_check: $*" >&2; exit 2; }

OFFLINE=0
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help) usage; exit 0 ;;
        --offline) OFFLINE=1 ;;
        -*) fail "$1 is unknown; see --help." ;;
        *) break ;;
    esac
    shift
done
# float16 is slow on a CPU, and verl scales no loss there.
if [ "${VERL_PLATFORM:-}" = cpu ]; then DTYPES=${DTYPES:-bfloat16}; fi
MODEL=${MODEL:-quickstart} DTYPES=${DTYPES:-float16 bfloat16} ENGINES=${ENGINES:-hf_server sglang vllm}
STEPS=${STEPS:-3} TIME_LIMIT=${TIME_LIMIT:-900} DRY_RUN=${DRY_RUN:-0} STACK=${STACK:-cpu}
WHEELS=${WHEELS:-} MODELS=${MODELS:-}
for number in STEPS TIME_LIMIT; do
    [[ ${!number} =~ ^[1-9][0-9]*$ ]] || fail "$number=${!number} must be a whole number, 1 or more."
done
for dtype in $DTYPES; do
    case $dtype in float16 | bfloat16 | float32) ;; *) fail "DTYPES=$DTYPES may hold float16, bfloat16, float32." ;; esac
done
for engine in $ENGINES; do
    case $engine in hf_server | sglang | vllm) ;; *) fail "ENGINES=$ENGINES may hold hf_server, sglang, vllm." ;; esac
done
case $DRY_RUN in 0 | 1) ;; *) fail "DRY_RUN=$DRY_RUN must be 0 or 1." ;; esac
case $STACK in cpu | sglang | vllm) ;; *) fail "STACK=$STACK must be cpu, sglang or vllm." ;; esac
for folder in WHEELS MODELS; do
    [ -z "${!folder}" ] || [ -d "${!folder}" ] || fail "$folder=${!folder} is no folder."
done
case $MODEL in
    quickstart) MODEL_DIR=$ROOT/recipe/cleaner/quickstart/model ;;
    smollm2) MODEL_DIR=$MODELS/smollm2 ;;
    *)
        MODEL_DIR=$MODEL
        [ -d "$MODEL_DIR" ] || MODEL_DIR=$MODELS/$MODEL
        [ -f "$MODEL_DIR/config.json" ] || fail "MODEL=$MODEL is neither quickstart, smollm2, the folder of a model," \
            "nor one in MODELS=$MODELS."
        MODEL_DIR=$(realpath "$MODEL_DIR") ;;
esac
OUTPUT_DIR=$(realpath -m "${OUTPUT_DIR:-output/gpu_check}")

PIP_ARGS=''
[ "$OFFLINE" = 0 ] || PIP_ARGS=--no-index
[ -z "$WHEELS" ] || PIP_ARGS="--no-index --find-links $(realpath "$WHEELS")"
if [ -z "${PYTHON:-}" ]; then
    PYTHON=$ROOT/.venv/bin/python
    if [ ! -x "$PYTHON" ]; then
        [ -n "$WHEELS" ] || fail "no $PYTHON; install CLEANER first (README.md), give its interpreter with PYTHON=," \
            "or the folder of its packages with WHEELS=."
        [ "$DRY_RUN" = 0 ] || fail "no $PYTHON, and DRY_RUN=1 installs nothing."
        echo "gpu_check: making .venv of $WHEELS"
        python3 -m venv .venv
        # shellcheck disable=SC2086
        "$PYTHON" -m pip install --quiet --disable-pip-version-check $PIP_ARGS -e "verl[$STACK]" -e code-judge ||
            fail "pip could not install verl[$STACK] from $WHEELS; its message is above."
    fi
fi
"$PYTHON" -c 'import cleaner' 2>/dev/null ||
    fail "$PYTHON cannot import cleaner; install it there as README.md tells."

# Everything that this script starts is stopped when it ends, however it ends.
RECIPE=gpu_check PY=$PYTHON
# shellcheck source=../recipe/cleaner/services.sh
. recipe/cleaner/services.sh
# shellcheck source=../recipe/cleaner/quickstart/inputs.sh
. recipe/cleaner/quickstart/inputs.sh
CHECK_PID=''
stop_all() {
    local status=$?
    trap '' INT TERM
    trap - EXIT
    stop_process "$CHECK_PID" 60
    stop_process "$JUDGE_PID" 10
    exit "$status"
}
trap stop_all EXIT
trap 'echo "gpu_check: stopping what was started."; exit 130' INT
trap 'exit 143' TERM

export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false TQ_NUM_THREADS=2 OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive
export RAY_USAGE_STATS_ENABLED=0 WANDB_MODE=disabled PYTHONUNBUFFERED=1 PYTHONHASHSEED=0
export RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=0
mkdir -p "$OUTPUT_DIR/logs"
LOGS=$OUTPUT_DIR/logs

ARGUMENTS=(--output "$OUTPUT_DIR" --recipe "$ROOT/recipe/cleaner" --steps "$STEPS" --limit "$TIME_LIMIT")
unprepared() {   # what, log: told in the table; the checks that can do without go on
    echo "gpu_check: $1; the end of $2:" >&2
    tail -n 10 "$2" >&2 || true
    ARGUMENTS+=(--unprepared "$1 (log: $2)")
}

if [ "$DRY_RUN" = 0 ]; then
    if [ -n "${CODE_JUDGE_URL:-}" ]; then
        export CODE_JUDGE_URL
    else
        export MAX_EXECUTION_TIME=${MAX_EXECUTION_TIME:-4}
        ARGUMENTS+=(--judge-log "$LOGS/judge.log")
        start_judge || echo "gpu_check: the checks go on without a judge." >&2
    fi
fi

ROWS=$(rows_folder 1)
prepare_rows() {
    "$PY" -c 'import reasoning_gym' 2>/dev/null ||
        # shellcheck disable=SC2086
        "$PY" -m pip install --quiet --disable-pip-version-check $PIP_ARGS reasoning-gym==0.1.25 || return 1
    make_rows "$ROWS" 1
}
if [ ! -f "$ROWS/val.parquet" ]; then
    echo "gpu_check: making problems"
    prepare_rows >"$LOGS/rows.log" 2>&1 || unprepared "the problems could not be made" "$LOGS/rows.log"
fi

OVERRIDES=()
if [ "$MODEL" = smollm2 ]; then
    OVERRIDES=("${SMOLLM2_OVERRIDES[@]}")
    if [ -z "$MODELS" ] || [ ! -d "$MODEL_DIR" ]; then MODEL_DIR=$(smollm2_folder); fi
    if [ ! -f "$MODEL_DIR/config.json" ]; then
        [ "$DRY_RUN" = 0 ] || fail "the cold-started SmolLM2 is not made yet; run once without DRY_RUN."
        echo "gpu_check: cold start of SmolLM2-135M on the CPU, some minutes, cached"
        make_smollm2 "$MODEL_DIR" >"$LOGS/smollm2.log" 2>&1 ||
            unprepared "SmolLM2 could not be made" "$LOGS/smollm2.log"
    fi
fi

# shellcheck disable=SC2206
ARGUMENTS+=(--rows "$ROWS" --model "$MODEL_DIR" --engines $ENGINES --dtypes $DTYPES)
[ "$DRY_RUN" = 0 ] || ARGUMENTS+=(--dry-run)
setsid "$PY" -m cleaner.gpu_check "${ARGUMENTS[@]}" -- ${OVERRIDES[@]+"${OVERRIDES[@]}"} "$@" &
CHECK_PID=$!
status=0
wait "$CHECK_PID" || status=$?
CHECK_PID=''
exit "$status"
