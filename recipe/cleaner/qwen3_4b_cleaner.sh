#!/usr/bin/env bash
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/launch.sh"

SUMMARY="Trains Qwen3-4B by GRPO on trajectories that SAAR has purified: every failing turn is rolled back."
MODEL_PATH=${MODEL_PATH:-Gen-Verse/Qwen3-4B-RA-SFT}
TRAIN_FILE=${TRAIN_FILE:-$ROOT/dataset/Open-AgentRL-30K.parquet}
VAL_FILES=${VAL_FILES:-$ROOT/dataset/aime2024.parquet,$ROOT/dataset/aime2025.parquet,$ROOT/dataset/gpqa_diamond.parquet}

train actor_rollout_ref.actor.optim.lr=2e-6 cleaner.saar.rollback_probability=1.0 "$@"
