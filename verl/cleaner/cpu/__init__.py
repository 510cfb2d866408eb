"""What lets verl train and roll out without a GPU, and without an inference engine.

- ``plugin``, ``platform``: the verl platform "cpu" (only with ``VERL_PLATFORM=cpu``)
- ``engine``, ``worker``: FSDP2 training on CPU, process group ``cpu:gloo``
- ``padded_log_probs``, ``cuda_engine``: training without flash attention, on CPU and on CUDA
- ``options``, ``sampling``, ``kv_cache``, ``fast_modules``, ``decoder``, ``engine_loop``, ``server``, ``replica``,
  ``weight_sync``: the rollout server ``hf_server``; it takes its device as a parameter and runs on CUDA as well
- ``backend``: registers engine and server with verl (``actor_rollout_ref.model.external_lib``)

Importing this package imports nothing else.
"""
