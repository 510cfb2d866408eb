#!/usr/bin/env bash
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/launch.sh"

SAMPLES=${SAMPLES:-8}
SUMMARY="Samples every row of a training file with a model and writes how often each is solved: the statistics that
data_filter.sh filters by. No training step. Stopped? The same command goes on; what is sampled stays.

  TRAIN_FILE=${TRAIN_FILE:=$ROOT/dataset/Open-AgentRL-30K.parquet}
                        the rows; VAL_FILES is not used
  SAMPLES=$SAMPLES             attempts of each row
  STATS_FILE            the statistics (default: OUTPUT_DIR/pass_rates.jsonl)

On a CPU, with the quick start's model and rows:
  .venv/bin/python -m cleaner.data.make_rows --out output/rows --train 16 --val 1
  VERL_PLATFORM=cpu ENGINE=hf_server NUM_GPUS=1 MODEL_PATH=recipe/cleaner/quickstart/model \\
    TRAIN_FILE=output/rows/train.parquet TOOL_CONFIG=recipe/cleaner/quickstart/tools.yaml \\
    bash recipe/cleaner/collect_pass_rates.sh +machine=cpu \\
    reward.custom_reward_function.path=pkg://cleaner.rewards.quickstart"
MODEL_PATH=${MODEL_PATH:-Gen-Verse/Qwen2.5-7B-RA-SFT}
VAL_FILES=$TRAIN_FILE

after_run() {   # count what was sampled, once all of it is there
    "$PYTHON" -m cleaner.data.pass_rates "$OUTPUT_DIR" --rows "$TRAIN_FILE" \
        --out "${STATS_FILE:-$OUTPUT_DIR/pass_rates.jsonl}"
}

whole_numbers SAMPLES
# Sampled as in training. 256 rows at a time: what is asked of the engine at once must fit into memory.
evaluate actor_rollout_ref.rollout.val_kwargs.n="$SAMPLES" actor_rollout_ref.rollout.val_kwargs.top_p=1.0 \
    data.val_batch_size=256 cleaner.record=false "$@"
