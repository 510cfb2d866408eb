# What all recipes share: environment variables with their defaults, dry run, Ray, code-judge. Sourced, not run.
#
# A recipe sets SUMMARY and the defaults of its own, then calls `train`, `evaluate` or `fine_tune` with its overrides
# and "$@". The command line comes last, so it wins.

RECIPE_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$RECIPE_DIR/../.." && pwd)
RECIPE=$(basename "$0" .sh)
# shellcheck source=services.sh
. "$RECIPE_DIR/services.sh"

fail() { echo "$RECIPE: $*" >&2; exit 2; }

usage() {   # what kind of run
    cat <<TEXT
usage: [VARIABLE=value ...] bash ${0#"$PWD"/} [overrides of verl's or CLEANER's keys ...]

$SUMMARY

  MODEL_PATH=$MODEL_PATH
                        folder or hub id of the model to start from
TEXT
    case $1 in
        train) cat <<TEXT
  TRAIN_FILE=$TRAIN_FILE
                        training rows, parquet
  VAL_FILES=$VAL_FILES
                        validation rows, with commas between
  RESUME_FROM           auto: the last checkpoint in OUTPUT_DIR; or a folder .../global_step_N. Unset: a new run
  KEEP_CHECKPOINTS=3    checkpoints that are kept
TEXT
            ;;
        evaluate) cat <<TEXT
  VAL_FILES=$VAL_FILES
                        rows to evaluate, with commas between
  RESUME_FROM           a training checkpoint .../global_step_N to evaluate instead of MODEL_PATH's own weights
  LOOKAHEAD=0           1: failing calls are rolled back in evaluation too
TEXT
            ;;
        fine_tune) cat <<TEXT
  TRAIN_FILE=$TRAIN_FILE
                        conversations, parquet with the columns messages and tools
  VAL_FILES             conversations for the validation loss, with commas between. Unset: none
  RESUME_FROM           auto: the last checkpoint in OUTPUT_DIR; or a folder .../global_step_N. Unset: a new run
  KEEP_CHECKPOINTS=2    checkpoints that are kept
  NODE_RANK=0, MASTER_ADDR, MASTER_PORT=29500
                        with NNODES above 1: run this script on every node, with a rank of its own
TEXT
            ;;
    esac
    [ -z "${BASELINE:-}" ] || cat <<TEXT
  SINGLE_FACTOR=0       1: everything as in the CLEANER recipe, rollback off. 0: the published baseline
TEXT
    cat <<TEXT
  OUTPUT_DIR=output/$RECIPE
                        metrics, trajectories, checkpoints, logs
  NUM_GPUS=4            GPUs of a node
  NNODES=1              nodes; above 1 see ray_cluster.sh --help
  SEED=1
TEXT
    [ "$1" = fine_tune ] || cat <<TEXT
  ENGINE=sglang         or vllm
  CODE_JUDGE_URL        a running code-judge, or several with commas between. Unset: one is started here, and stopped
  RAY_ADDRESS           a running Ray cluster. Unset: Ray is started here, and stopped
TEXT
    cat <<TEXT
  WANDB_API_KEY         without it, and without WANDB_MODE, Weights & Biases writes to disk only (offline)
  PYTHON                interpreter; .venv/bin/python if it exists, else python3
  DRY_RUN=0             1: compose and check the configuration, print what was decided, start nothing. Needs neither
                        GPU nor engine, model or data

  DRY_RUN=1 bash ${0#"$PWD"/} trainer.total_epochs=2
TEXT
}

whole_numbers() {   # names of variables that must hold one, 1 or more (SEED, NODE_RANK: 0 or more)
    local name
    for name in "$@"; do
        [[ ${!name} =~ ^(0|[1-9][0-9]*)$ ]] || fail "$name=${!name} must be a whole number."
        case $name in SEED | NODE_RANK) ;; *) [ "${!name}" -ge 1 ] || fail "$name=${!name} must be 1 or more." ;; esac
    done
}

switches() {   # names of variables that must be 0 or 1
    local name
    for name in "$@"; do
        case ${!name} in 0 | 1) ;; *) fail "$name=${!name} must be 0 or 1." ;; esac
    done
}

quoted_list() {   # a,b as ['a','b'], for the configuration
    local IFS=, part text=''
    for part in $1; do
        case $part in *[\'\\]*) fail "$part: a path with a quote or a backslash cannot be given." ;; esac
        [ -z "$part" ] || text+="${text:+,}'$part'"
    done
    echo "[$text]"
}

settle() {   # kind of run, arguments of the recipe: the environment that every kind of run needs
    local kind=$1 argument
    shift
    KEEP_CHECKPOINTS=${KEEP_CHECKPOINTS:-3}
    for argument in "$@"; do
        case $argument in -h | --help) usage "$kind"; exit 0 ;; esac
    done
    DRY_RUN=${DRY_RUN:-0} NUM_GPUS=${NUM_GPUS:-4} NNODES=${NNODES:-1} SEED=${SEED:-1}
    ENGINE=${ENGINE:-sglang} VAL_FILES=${VAL_FILES:-} TRAIN_FILE=${TRAIN_FILE:-}
    switches DRY_RUN
    whole_numbers NUM_GPUS NNODES SEED KEEP_CHECKPOINTS
    case $ENGINE in
        sglang | vllm | hf_server) ;;
        *) fail "ENGINE=$ENGINE is unknown; use sglang or vllm (hf_server: small models, see machine/cpu.yaml)." ;;
    esac
    OUTPUT_DIR=$(realpath -m "${OUTPUT_DIR:-$ROOT/output/$RECIPE}")
    TOOL_CONFIG=${TOOL_CONFIG:-$ROOT/verl/cleaner/tools/code_interpreter.yaml}
    VALIDATION=$(quoted_list "$VAL_FILES")
    case ${RESUME_FROM:=} in
        '') RESUME_MODE=disable RESUME_PATH=null ;;
        auto) RESUME_MODE=auto RESUME_PATH=null ;;
        *global_step_*) RESUME_MODE=resume_path RESUME_PATH="'$(realpath -m "$RESUME_FROM")'" ;;
        *) fail "RESUME_FROM=$RESUME_FROM must be auto or a folder .../global_step_N." ;;
    esac
    if [ -z "${PYTHON:-}" ]; then
        PYTHON=$ROOT/.venv/bin/python
        [ -x "$PYTHON" ] || PYTHON=$(command -v python3) || fail "no python3 found; name one with PYTHON=."
    fi
    # What the configuration reads.
    export RECIPE RECIPE_DIR MODEL_PATH TRAIN_FILE OUTPUT_DIR NUM_GPUS NNODES SEED ENGINE TOOL_CONFIG
    export KEEP_CHECKPOINTS RESUME_MODE RESUME_PATH DRY_RUN
    # The limits of a program: those of the published runs. They hold for the judge that is started here.
    export MAX_EXECUTION_TIME=${MAX_EXECUTION_TIME:-4} MAX_MEMORY=${MAX_MEMORY:-256}
    export MAX_STDOUT_ERROR_LENGTH=${MAX_STDOUT_ERROR_LENGTH:-4000}
    export TOKENIZERS_PARALLELISM=${TOKENIZERS_PARALLELISM:-true} RAY_USAGE_STATS_ENABLED=0 PYTHONUNBUFFERED=1
    export WANDB_DIR=${WANDB_DIR:-$OUTPUT_DIR}
    # Without a key wandb would ask for one in a process that nobody can answer.
    if [ -z "${WANDB_MODE:-}" ] && [ -z "${WANDB_API_KEY:-}" ] && ! grep -qs 'api\.wandb\.ai' ~/.netrc; then
        export WANDB_MODE=offline
    fi
}

train() {   # overrides
    settle train "$@"
    run cleaner.main "$@"
}

baseline() {   # arguments as for train: the published baseline, or CLEANER without rollback
    SINGLE_FACTOR=${SINGLE_FACTOR:-0} BASELINE=1
    switches SINGLE_FACTOR
    if [ "$SINGLE_FACTOR" = 1 ]; then train arm=single_factor "$@"; else train arm=baseline "$@"; fi
}

evaluate() {   # overrides
    local arm=single_factor lookahead=false
    LOOKAHEAD=${LOOKAHEAD:-0} KEEP_CHECKPOINTS=1
    switches LOOKAHEAD
    if [ "$LOOKAHEAD" = 1 ]; then arm=purified lookahead=true; fi
    settle evaluate "$@"
    [ "$RESUME_MODE" != auto ] || fail "RESUME_FROM=auto: name the checkpoint, a folder .../global_step_N."
    # An evaluation goes on in its OUTPUT_DIR by itself.
    run cleaner.main arm="$arm" cleaner.saar.rollback_in_validation="$lookahead" trainer.val_only=true \
        reward.reward_kwargs.overlong_buffer_cfg.enable=false "$@"
}

fine_tune() {   # overrides
    KEEP_CHECKPOINTS=${KEEP_CHECKPOINTS:-2}
    settle fine_tune "$@"
    NODE_RANK=${NODE_RANK:-0} MASTER_PORT=${MASTER_PORT:-29500} MASTER_ADDR=${MASTER_ADDR:-}
    whole_numbers NODE_RANK MASTER_PORT
    [ "$NODE_RANK" -lt "$NNODES" ] || fail "NODE_RANK=$NODE_RANK must be below NNODES=$NNODES."
    if [ "$NNODES" -gt 1 ] && [ -z "$MASTER_ADDR" ]; then
        fail "NNODES=$NNODES needs MASTER_ADDR, the host of the node with NODE_RANK=0."
    fi
    local launcher=("$PYTHON" -m torch.distributed.run --nnodes "$NNODES" --node-rank "$NODE_RANK"
        --nproc-per-node "$NUM_GPUS" --master-addr "${MASTER_ADDR:-127.0.0.1}" --master-port "$MASTER_PORT")
    if [ "$DRY_RUN" = 1 ]; then launcher=("$PYTHON"); fi
    start "${launcher[@]}" -m cleaner.sft --config-dir "$RECIPE_DIR" --config-name sft data.val_files="$VALIDATION" "$@"
}

run() {   # module, overrides: with Ray and a judge
    local module=$1 forward=()
    shift
    if [ "$DRY_RUN" = 1 ]; then
        start "$PYTHON" -m cleaner.dry_run --config-dir "$RECIPE_DIR" --config-name recipe data.val_files="$VALIDATION" "$@"
    fi
    if [ -n "${RAY_ADDRESS:-}" ]; then
        [ -n "${CODE_JUDGE_URL:-}" ] || fail "RAY_ADDRESS is set, so CODE_JUDGE_URL must be too: an address that" \
            "every node reaches. Start a judge with ray_cluster.sh judge."
        echo "$RECIPE: using the Ray cluster at $RAY_ADDRESS"
    elif [ "$NNODES" -gt 1 ]; then
        fail "NNODES=$NNODES needs a Ray cluster: start it with ray_cluster.sh, then set RAY_ADDRESS."
    fi
    # Workers on other nodes do not inherit this shell's environment. Secrets are not passed on: they would be logged.
    local name
    for name in CODE_JUDGE_URL CODE_JUDGE_TOKEN_FILE HF_HOME HF_HUB_OFFLINE HF_ENDPOINT WANDB_MODE; do
        if [ -n "${RAY_ADDRESS:-}" ] && [ -n "${!name:-}" ]; then
            forward+=("+ray_kwargs.ray_init.runtime_env.env_vars.$name=\${oc.env:$name}")
        fi
    done
    start "$PYTHON" -m "$module" --config-dir "$RECIPE_DIR" --config-name recipe data.val_files="$VALIDATION" \
        ${forward[@]+"${forward[@]}"} "$@"
}

start() {   # a command, which ends the script
    if [ "$DRY_RUN" = 1 ]; then exec "$@"; fi
    trap stop_all EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    mkdir -p "$OUTPUT_DIR/logs"
    case " $* " in
        *' cleaner.main '*)
            if [ -n "${CODE_JUDGE_URL:-}" ]; then
                export CODE_JUDGE_URL
            else
                start_judge
                echo "$RECIPE: code-judge at $CODE_JUDGE_URL, $MAX_EXECUTION_TIME s and $MAX_MEMORY MiB a program"
            fi ;;
    esac
    setsid "$@" > >(tee -a "$OUTPUT_DIR/logs/run.log") 2>&1 &
    RUN_PID=$!
    local status=0
    wait "$RUN_PID" || status=$?
    RUN_PID=''
    [ "$status" = 0 ] || echo "$RECIPE: ended with status $status; the log is $OUTPUT_DIR/logs/run.log" >&2
    # A script may define what becomes of the results.
    if [ "$status" = 0 ] && declare -F after_run >/dev/null; then after_run || status=$?; fi
    exit "$status"
}

RUN_PID=''
stop_all() {   # however the script ends
    local status=$?
    trap '' INT TERM
    trap - EXIT
    stop_process "$RUN_PID" 60
    stop_process "$JUDGE_PID" 10
    exit "$status"
}
