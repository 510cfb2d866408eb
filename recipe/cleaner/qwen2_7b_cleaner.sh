#!/usr/bin/env bash
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/launch.sh"

SUMMARY="Trains Qwen2.5-7B by GRPO on trajectories that SAAR has purified: a failing turn is rolled back with probability 0.7."
MODEL_PATH=${MODEL_PATH:-Gen-Verse/Qwen2.5-7B-RA-SFT}
TRAIN_FILE=${TRAIN_FILE:-$ROOT/dataset/filtered_sr.parquet}
VAL_FILES=${VAL_FILES:-$ROOT/dataset/aime2024.parquet,$ROOT/dataset/aime2025.parquet,$ROOT/dataset/gpqa_diamond.parquet}

train actor_rollout_ref.actor.optim.lr=1e-6 cleaner.saar.rollback_probability=0.7 "$@"
