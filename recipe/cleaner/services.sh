# What a recipe starts beside the trainer, and how everything is stopped again. Sourced, not run.
# Needs RECIPE (its name), PYTHON and OUTPUT_DIR, with the folder logs in it. Sets JUDGE_PID; exports CODE_JUDGE_URL.
# A judge that does not start is a status that is not 0: it ends a script with `set -e` unless the script looks at it.

JUDGE_PID=''

stop_process() {   # pid, seconds of patience: asks a process to stop, waits, then kills what is left of its session
    local pid=$1 patience=$2
    [ -n "$pid" ] || return 0
    kill -TERM "$pid" 2>/dev/null || true
    for _ in $(seq $((patience * 10))); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
    kill -KILL -- "-$pid" 2>/dev/null || kill -KILL "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
}

start_judge() {   # a code-judge of this machine, with the limits in MAX_EXECUTION_TIME, MAX_MEMORY, ...
    local ready=$OUTPUT_DIR/logs/judge.url command
    command=$(dirname "$PYTHON")/code-judge
    [ -x "$command" ] || command=$(command -v code-judge) || {
        echo "$RECIPE: no code-judge found; install it (pip install -e code-judge) or set CODE_JUDGE_URL." >&2
        return 2
    }
    rm -f "$ready"
    setsid "$command" serve --port 0 --ready-file "$ready" --die-with-parent >"$OUTPUT_DIR/logs/judge.log" 2>&1 &
    JUDGE_PID=$!
    for _ in $(seq 300); do
        [ -s "$ready" ] && break
        kill -0 "$JUDGE_PID" 2>/dev/null || break
        sleep 0.1
    done
    if [ ! -s "$ready" ]; then
        echo "$RECIPE: code-judge did not start; the end of $OUTPUT_DIR/logs/judge.log:" >&2
        tail -n 20 "$OUTPUT_DIR/logs/judge.log" >&2
        return 1
    fi
    CODE_JUDGE_URL=$(cat "$ready")
    export CODE_JUDGE_URL
}
