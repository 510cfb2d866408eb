#!/usr/bin/env bash
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../launch.sh"

SUMMARY="Evaluates Qwen3-4B on AIME 2024, AIME 2025 and GPQA-Diamond, 16 samples a problem. No training step."
MODEL_PATH=${MODEL_PATH:-Gen-Verse/Qwen3-4B-RA-SFT}
VAL_FILES=${VAL_FILES:-$ROOT/dataset/aime2024.parquet,$ROOT/dataset/aime2025.parquet,$ROOT/dataset/gpqa_diamond.parquet}

evaluate "$@"
