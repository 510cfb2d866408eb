#!/usr/bin/env bash
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/launch.sh"

SUMMARY="Fine-tunes Qwen3-4B on conversations with tool calls: the cold start that the other recipes begin from.
For the 7B model: MODEL_PATH=Qwen/Qwen2.5-7B-Instruct."
MODEL_PATH=${MODEL_PATH:-Qwen/Qwen3-4B-Instruct-2507}
TRAIN_FILE=${TRAIN_FILE:-$ROOT/dataset/Open-AgentRL-SFT-3K.parquet}

fine_tune "$@"
