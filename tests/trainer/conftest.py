"""A real Ray with a real TransferQueue, shared by the tests of the trainer's parts; makes `table_rows` importable."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def transfer_queue() -> Iterator[None]:
    import ray
    import transfer_queue as tq
    from hydra import compose, initialize_config_module

    ray.init(num_cpus=4, include_dashboard=False, object_store_memory=100_000_000, log_to_driver=False)
    with initialize_config_module("cleaner.config", version_base=None):
        storage_units = "transfer_queue.backend.SimpleStorage.num_data_storage_units=1"
        config = compose("cleaner", overrides=["actor_rollout_ref.rollout.name=hf_server", storage_units])
    tq.init(config.transfer_queue)
    yield
    tq.close()
    ray.shutdown()


@pytest.fixture
def put(transfer_queue: None) -> Iterator[Callable[..., Any]]:
    """`table_rows.put_rows`; what it put is cleared afterwards."""
    import transfer_queue as tq
    from table_rows import put_rows

    yield put_rows
    tq.kv_clear(keys=list(tq.kv_list("train")["train"]), partition_id="train")
