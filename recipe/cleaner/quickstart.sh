#!/usr/bin/env bash
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$ROOT"

usage() {
    cat <<'TEXT'
usage: [VARIABLE=value ...] bash recipe/cleaner/quickstart.sh [verl or cleaner overrides ...]

Trains a small tool-using model by GRPO on purified trajectories, with everything real: verl's trainer on FSDP2, Ray,
our rollout server and agent loop, and code-judge running the model's Python. Needs Python 3.11 or 3.12, two cores,
8 GiB of memory, no GPU. The first run sets up .venv (2 GiB of packages).

  STEPS=25            training steps (smollm2: 4)
  SEED=1              seed of data, sampling and rollback
  ENABLE_ROLLBACK=1   0 trains the baseline: the same run without rollback
  MODEL=tiny          smollm2: SmolLM2-135M, cold-started here first (about six minutes), then 2 to 3 minutes a step
  RESUME=0            1 goes on from the last checkpoint in OUTPUT_DIR
  OUTPUT_DIR=output/quickstart
  REDIS_URI           use this Redis instead of the embedded Valkey
  CODE_JUDGE_URL      use a running code-judge instead of starting one
  VERL_PLATFORM=cpu   nvidia trains on a GPU instead; scripts/gpu_check.sh tells whether that works
  DRY_RUN=0           1 sets up, prints and checks the resolved configuration, and stops

  bash recipe/cleaner/quickstart.sh
  STEPS=50 SEED=2 ENABLE_ROLLBACK=0 OUTPUT_DIR=output/baseline bash recipe/cleaner/quickstart.sh
  RESUME=1 STEPS=50 bash recipe/cleaner/quickstart.sh
  bash recipe/cleaner/quickstart.sh cleaner.saar.gamma=0.8 actor_rollout_ref.actor.optim.lr=1e-4
TEXT
}
case ${1:-} in -h | --help) usage; exit 0 ;; esac

MODEL=${MODEL:-tiny}
case $MODEL in
    tiny) STEPS=${STEPS:-25} ;;
    smollm2) STEPS=${STEPS:-4} ;;
    *) echo "quickstart: MODEL=$MODEL is unknown; use tiny or smollm2." >&2; exit 2 ;;
esac
SEED=${SEED:-1}
ENABLE_ROLLBACK=${ENABLE_ROLLBACK:-1}
RESUME=${RESUME:-0}
DRY_RUN=${DRY_RUN:-0}
for flag in ENABLE_ROLLBACK RESUME DRY_RUN; do
    case ${!flag} in 0 | 1) ;; *) echo "quickstart: $flag=${!flag} must be 0 or 1." >&2; exit 2 ;; esac
done
for number in STEPS SEED; do
    [[ ${!number} =~ ^[0-9]+$ ]] || { echo "quickstart: $number=${!number} must be a whole number." >&2; exit 2; }
done
[ "$STEPS" -ge 1 ] || { echo "quickstart: STEPS=$STEPS must be at least 1." >&2; exit 2; }
OUTPUT_DIR=$(realpath -m "${OUTPUT_DIR:-output/quickstart}")
export OUTPUT_DIR

SECONDS=0
PHASE=set-up PHASE_START=0
phase() {   # name, note: announces a phase and records the seconds of the one before
    if [ "$DRY_RUN" = 0 ] && [ -d "$OUTPUT_DIR" ]; then
        printf '{"phase": "%s", "seconds": %d}\n' "$PHASE" $((SECONDS - PHASE_START)) >>"$OUTPUT_DIR/phases.jsonl"
    fi
    PHASE=$1 PHASE_START=$SECONDS
    printf '[%4ds] %s%s\n' "$SECONDS" "$1" "${2:+: $2}"
}

printf '[   0s] set-up\n'
bash recipe/cleaner/setup_cpu.sh
PY=$ROOT/.venv/bin/python
RECIPE=quickstart PYTHON=$PY

# Everything that this script starts is stopped when it ends, however it ends.
# shellcheck source=services.sh
. recipe/cleaner/services.sh
# shellcheck source=quickstart/inputs.sh
. recipe/cleaner/quickstart/inputs.sh
TRAIN_PID='' PROGRESS_PID='' INTERRUPTED=''
stop_all() {
    local status=$?
    trap '' INT TERM
    trap - EXIT
    [ -z "$INTERRUPTED" ] || echo "quickstart: stopping what was started; RESUME=1 goes on from the last checkpoint."
    stop_process "$TRAIN_PID" 30
    stop_process "$PROGRESS_PID" 1
    stop_process "$JUDGE_PID" 10
    exit "$status"
}
trap stop_all EXIT
trap 'INTERRUPTED=1; exit 130' INT
trap 'INTERRUPTED=1; exit 143' TERM

export VERL_PLATFORM=${VERL_PLATFORM:-cpu} HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false TQ_NUM_THREADS=2
# The trainer computes with both cores, the rollout server sets its own number. Waiting threads sleep: spinning ones
# would take the cores from the other processes.
export OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive
export RAY_USAGE_STATS_ENABLED=0 WANDB_MODE=${WANDB_MODE:-disabled} PYTHONUNBUFFERED=1 PYTHONHASHSEED=0
export RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=0

CHECKPOINTED=0
LATEST=$OUTPUT_DIR/checkpoints/latest_checkpointed_iteration.txt
if [ "$RESUME" = 1 ]; then
    [ -f "$LATEST" ] || { echo "quickstart: RESUME=1, but $OUTPUT_DIR holds no checkpoint; run without RESUME first." >&2; exit 2; }
    CHECKPOINTED=$(cat "$LATEST")
    if [ "$CHECKPOINTED" -ge "$STEPS" ]; then
        echo "quickstart: $OUTPUT_DIR is already at step $CHECKPOINTED; set STEPS higher to go on." >&2
        exit 2
    fi
elif [ "$DRY_RUN" = 0 ] && [ -e "$OUTPUT_DIR/config.yaml" ]; then
    OLD=$OUTPUT_DIR.$(date -r "$OUTPUT_DIR/config.yaml" +%Y%m%d-%H%M%S)
    mv "$OUTPUT_DIR" "$OLD"
    echo "quickstart: the earlier run is kept as $OLD"
fi
[ "$DRY_RUN" = 1 ] || mkdir -p "$OUTPUT_DIR/logs"

need_judge() {   # once
    [ -z "$JUDGE_PID" ] || return 0
    if [ -n "${CODE_JUDGE_URL:-}" ]; then
        phase "code-judge" "using $CODE_JUDGE_URL"
        export CODE_JUDGE_URL
        return
    fi
    phase "code-judge"
    export MAX_EXECUTION_TIME=${MAX_EXECUTION_TIME:-4}
    start_judge
}

ROWS=$(rows_folder "$SEED")
if [ ! -f "$ROWS/val.parquet" ]; then
    phase "rows" "from reasoning-gym"
    make_rows "$ROWS" "$SEED"
fi

OVERRIDES=()
if [ "$MODEL" = tiny ]; then
    MODEL_DIR=$ROOT/recipe/cleaner/quickstart/model
else
    MODEL_DIR=$(smollm2_folder)
    if [ ! -f "$MODEL_DIR/config.json" ]; then
        if [ "$DRY_RUN" = 1 ]; then
            echo "quickstart: the cold-started SmolLM2 is not made yet; run once without DRY_RUN." >&2
            exit 2
        fi
        need_judge
        phase "cold start" "SmolLM2-135M, supervised, a few minutes, cached"
        make_smollm2 "$MODEL_DIR"
    fi
    OVERRIDES+=("${SMOLLM2_OVERRIDES[@]}")
fi
[ "$ENABLE_ROLLBACK" = 1 ] || OVERRIDES+=(cleaner.strategy=none)
[ "$RESUME" = 0 ] || OVERRIDES+=(trainer.resume_mode=auto)

export ROWS MODEL_DIR RECIPE_DIR=$ROOT/recipe/cleaner
TRAIN=("$PY" -m cleaner.main --config-dir "$RECIPE_DIR" --config-name quickstart
    trainer.total_training_steps="$STEPS" cleaner.seed="$SEED"
    "${OVERRIDES[@]}" "$@")
if [ "$DRY_RUN" = 1 ]; then
    DRY_RUN=1 "${TRAIN[@]}"
    exit 0
fi

need_judge
phase "training" "$STEPS steps, $([ "$ENABLE_ROLLBACK" = 1 ] && echo 'rollback on' || echo 'baseline, rollback off')"
setsid "${TRAIN[@]}" >"$OUTPUT_DIR/logs/train.log" 2>&1 &
TRAIN_PID=$!
# Waited for, not run in the foreground: a signal to this script alone is then heard at once.
"$PY" -m cleaner.report.progress "$OUTPUT_DIR" --pid "$TRAIN_PID" --steps "$STEPS" --from-step "$CHECKPOINTED" &
PROGRESS_PID=$!
wait "$PROGRESS_PID"
PROGRESS_PID=''
status=0
wait "$TRAIN_PID" || status=$?
TRAIN_PID=''
if [ "$status" -ne 0 ]; then
    echo "quickstart: training ended with status $status; the end of $OUTPUT_DIR/logs/train.log:" >&2
    tail -n 25 "$OUTPUT_DIR/logs/train.log" >&2
    exit "$status"
fi

phase "results"
rm -rf "$OUTPUT_DIR/huggingface"
if [ -f "$LATEST" ]; then
    cp -r "$OUTPUT_DIR/checkpoints/global_step_$(cat "$LATEST")/actor/huggingface" "$OUTPUT_DIR/huggingface"
else
    echo "quickstart: no checkpoint was saved (trainer.save_freq), so no model either."
fi
"$PY" -m cleaner.report "$OUTPUT_DIR"
phase "done" "$OUTPUT_DIR"
echo "        curves and trajectories, in a browser: $OUTPUT_DIR/report.html"
