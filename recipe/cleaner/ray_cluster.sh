#!/usr/bin/env bash
set -euo pipefail
RECIPE=ray_cluster
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

usage() {
    cat <<'TEXT'
usage: [VARIABLE=value ...] bash recipe/cleaner/ray_cluster.sh ROLE

Starts one part of a training on several nodes. Every node needs this repository at the same path, the same
environment, and OUTPUT_DIR on a file system that all of them share.

  head               on the first node: Ray's head
  worker             on every other node, with HEAD=<host of the first>: joins it
  judge              on one node: code-judge, reachable from all nodes, with the workers of this machine
  judge-workers      on any further machine, with REDIS_URI: more workers for that judge
  status             nodes and GPUs of the cluster
  stop               stops Ray on this node

  HEAD               host name or address of the first node
  PORT=6379          Ray's port there
  NUM_GPUS           GPUs that this node offers. Unset: Ray counts them
  JUDGE_PORT=8088    port of code-judge
  REDIS_URI          for `judge`, if other machines are to have workers; for `judge-workers`: redis://host:6379.
                     Not 6379 of the head: that is Ray's
  MAX_EXECUTION_TIME=4, MAX_MEMORY=256
                     seconds and MiB of a program
  CODE_JUDGE_TOKEN_FILE
                     token that the judge asks for, on the shared file system
  PYTHON             interpreter; .venv/bin/python if it exists, else python3
  DRY_RUN=0          1: print the command and start nothing

Two nodes, then training from the first:

  node 1$ bash recipe/cleaner/ray_cluster.sh head
  node 2$ HEAD=node1 bash recipe/cleaner/ray_cluster.sh worker
  node 1$ bash recipe/cleaner/ray_cluster.sh judge &
  node 1$ NNODES=2 RAY_ADDRESS=node1:6379 CODE_JUDGE_URL=http://node1:8088 bash recipe/cleaner/qwen3_4b_cleaner.sh

Secrets (WANDB_API_KEY, HF_TOKEN) belong into the environment of `head` and `worker`: they reach Ray's processes there,
and the recipes pass none of them on, because verl logs what is passed.
TEXT
}

fail() { echo "$RECIPE: $*" >&2; exit 2; }

DRY_RUN=${DRY_RUN:-0} PORT=${PORT:-6379} JUDGE_PORT=${JUDGE_PORT:-8088}
case $DRY_RUN in 0 | 1) ;; *) fail "DRY_RUN=$DRY_RUN must be 0 or 1." ;; esac
for number in PORT JUDGE_PORT ${NUM_GPUS+NUM_GPUS}; do
    [[ ${!number} =~ ^[0-9]+$ ]] || fail "$number=${!number} must be a whole number."
done
if [ -z "${PYTHON:-}" ]; then
    PYTHON=$ROOT/.venv/bin/python
    [ -x "$PYTHON" ] || PYTHON=$(command -v python3) || fail "no python3 found; name one with PYTHON=."
fi
# A program's limits: those of the published runs.
export MAX_EXECUTION_TIME=${MAX_EXECUTION_TIME:-4} MAX_MEMORY=${MAX_MEMORY:-256}
export MAX_STDOUT_ERROR_LENGTH=${MAX_STDOUT_ERROR_LENGTH:-4000}
export RAY_USAGE_STATS_ENABLED=0 PYTHONUNBUFFERED=1

tool() {   # a command of the interpreter's environment
    local beside
    beside=$(dirname "$PYTHON")/$1
    if [ -x "$beside" ]; then echo "$beside"; else command -v "$1" || echo "$1"; fi
}
start() {
    if [ "$DRY_RUN" = 1 ]; then
        printf '%q ' "$@"
        echo
        exit 0
    fi
    [ -x "$(command -v "$1")" ] || fail "no $1 found; install the project, or name its interpreter with PYTHON=."
    exec "$@"
}

GPUS=()
[ -z "${NUM_GPUS:-}" ] || GPUS=("--num-gpus=$NUM_GPUS")
case ${1:-} in
    head) start "$(tool ray)" start --head --port="$PORT" ${GPUS[@]+"${GPUS[@]}"} --disable-usage-stats ;;
    worker)
        [ -n "${HEAD:-}" ] || fail "worker needs HEAD, the host of the node on which head was started."
        start "$(tool ray)" start --address="$HEAD:$PORT" ${GPUS[@]+"${GPUS[@]}"} --disable-usage-stats
        ;;
    judge) start "$(tool code-judge)" serve --host 0.0.0.0 --port "$JUDGE_PORT" ;;
    judge-workers)
        [ -n "${REDIS_URI:-}" ] || fail "judge-workers needs REDIS_URI, the server through which the judge talks to them."
        start "$(tool code-judge)" workers
        ;;
    status) start "$(tool ray)" status --address="${RAY_ADDRESS:-${HEAD:-127.0.0.1}:$PORT}" ;;
    stop) start "$(tool ray)" stop ;;
    -h | --help) usage ;;
    '') usage >&2; exit 2 ;;
    *) fail "role $1 is unknown; --help lists them." ;;
esac
