#!/usr/bin/env bash
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../launch.sh"

SUMMARY="Evaluates Qwen3-4B on LiveCodeBench v6, 10 samples a problem. No training step."
MODEL_PATH=${MODEL_PATH:-Gen-Verse/Qwen3-4B-RA-SFT}
VAL_FILES=${VAL_FILES:-$ROOT/dataset/lcb_v6_2502_2505.parquet}

evaluate actor_rollout_ref.rollout.val_kwargs.n=10 "$@"
