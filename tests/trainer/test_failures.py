"""A trajectory that raises: recorded with its cause, its siblings untouched, the run ended only where that was asked.

The worker is the real one, with a real TransferQueue and, where it matters, a real reward worker; the agent loop
follows a script that the dataset row holds: what each of the group's samples does.
"""

import asyncio
import json
import pickle
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ray
import transfer_queue as tq
from omegaconf import DictConfig, OmegaConf
from ray import cloudpickle
from transfer_queue import KVBatchMeta
from verl.experimental.agent_loop.agent_loop import (
    AgentLoopBase,
    AgentLoopMetrics,
    AgentLoopOutput,
    _agent_loop_registry,
)
from verl.experimental.reward_loop.reward_loop import RewardLoopWorker
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer
from verl.utils import tensordict_utils as tu
from verl.utils.import_utils import load_class_from_fqn
from verl.workers.rollout.replica import TokenOutput

from cleaner import trajectory_rows
from cleaner.failures import (
    Failure,
    FailureMonitor,
    TooManyFailures,
    append_json_lines,
    count_trajectories,
    describe_exception,
    split_failures,
)
from cleaner.replay_buffer import OrderedReplayBuffer, in_dataset_order
from cleaner.rollout_worker import CleanerAgentLoopWorker

MODEL = Path(__file__).parents[2] / "recipe" / "cleaner" / "quickstart" / "model"
# What verl's trainer reads of every row of a sampled batch: `_validate`, `_log_rollout_data`, group filtering.
READ_BY_VERL = [
    "prompts",
    "responses",
    "uid",
    "rm_scores",
    "num_turns",
    "reward_model",
    "data_source",
    "extra_fields",
]
REWARD = """
def compute_score(data_source, solution_str, ground_truth, extra_info=None, **kwargs):
    if ground_truth == "explode":
        raise ZeroDivisionError("the reward of " + data_source)
    if ground_truth == "no judge":
        from code_judge.client import JudgeUnavailable

        raise JudgeUnavailable("no answer within 180 s")
    return {"score": 0.5, "acc": 0.5}
"""


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


class ScriptedLoop(AgentLoopBase):
    """Does what `script[session]` of the row says."""

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> Any:
        act, length = kwargs["script"][kwargs["session_id"]], kwargs["session_id"] + 3
        if act == "raise":
            raise LookupError("no such page")
        if act == "cancel":
            raise asyncio.CancelledError
        if act == "nothing":
            return []
        rows = [self._output(length + row, None if act == "reward" else 1.0) for row in range(3)]
        if act == "not storable":
            rows[2].extra_fields["lock"] = threading.Lock()
        return rows if act in ("three rows", "not storable") else rows[0]

    def _output(self, length: int, reward: float | None) -> AgentLoopOutput:
        output = AgentLoopOutput(
            prompt_ids=[5, 6, 7],
            response_ids=[8] * length,
            response_mask=[1] * length,
            response_logprobs=[-1.0] * length,
            multi_modal_data={},
            mm_processor_kwargs={},
            mm_processor_output=None,
            num_turns=2,
            metrics=AgentLoopMetrics(),
            extra_fields={
                "min_global_steps": 4,
                "max_global_steps": 4,
                "turn_scores": [],
                "tool_rewards": [],
            },
        )
        if reward is not None:
            output.reward_score = reward
            output.extra_fields["reward_extra_info"] = {"acc": reward}
        return output


_agent_loop_registry["scripted"] = {"_target_": f"{__name__}.ScriptedLoop"}


@pytest.fixture(scope="module")
def config(transfer_queue: None, tmp_path_factory: pytest.TempPathFactory) -> DictConfig:
    from hydra import compose, initialize_config_module

    reward = tmp_path_factory.mktemp("reward") / "reward.py"
    reward.write_text(REWARD)
    overrides = [
        f"actor_rollout_ref.model.path={MODEL}",
        "actor_rollout_ref.rollout.name=hf_server",
        "actor_rollout_ref.rollout.n=4",
        "actor_rollout_ref.rollout.agent.num_workers=1",
        "actor_rollout_ref.rollout.agent.default_agent_loop=single_turn_agent",
        f"reward.custom_reward_function.path={reward}",
    ]
    with initialize_config_module("cleaner.config", version_base=None):
        return compose("cleaner", overrides=overrides)


@pytest.fixture(scope="module")
def reward_worker(config: DictConfig) -> Iterator[Any]:
    actor = ray.remote(RewardLoopWorker).remote(config)
    yield actor
    ray.kill(actor)


@pytest.fixture(scope="module")
def worker(config: DictConfig, reward_worker: Any) -> CleanerAgentLoopWorker:
    return CleanerAgentLoopWorker(config, None, None, [reward_worker])


def make_group(worker: Any, script: list[str], partition: str, truth: str = "explode") -> Any:
    """Makes the group "g" by a script; returns its rows, as verl's replay buffer lists them, and its status."""
    tag = {"is_prompt": True, "status": "pending", "global_steps": 4}
    tq.kv_put(key="g", partition_id=partition, tag=tag)
    prompt = {
        "uid": "g", "index": 7, "script": script, "__rollout_n__": len(script), "agent_name": "scripted",
        "data_source": "test", "raw_prompt": [{"role": "user", "content": "?"}], "global_steps": 4,
        "reward_model": {"ground_truth": truth},
    }  # fmt: skip
    where = {"step": 4, "sample_index": 7, "rollout_n": 0, "validate": partition == "val"}
    asyncio.run(worker._run_prompt(prompt, {}, trajectory=where))
    listed = tq.kv_list(partition)[partition]
    status = listed.pop("g")["status"]
    return SimpleNamespace(status=status, batch=KVBatchMeta(list(listed), list(listed.values()), partition))


@pytest.fixture
def clean_queue(transfer_queue: None) -> Iterator[None]:
    yield
    for partition, keys in tq.kv_list().items():
        if keys:
            tq.kv_clear(keys=list(keys), partition_id=partition)


@pytest.fixture
def run(worker: CleanerAgentLoopWorker, clean_queue: None) -> Callable[..., Any]:
    return lambda *script, partition="train", truth="explode": make_group(
        worker, list(script), partition, truth
    )


def failure(**changes: Any) -> Failure:
    values = {
        "phase": "train", "step": 3, "index": 1, "session": 0, "uid": "u", "type": "ValueError", "message": "bad",
        "where": "cleaner.x:1 in f", "traceback": "Traceback …",
    }  # fmt: skip
    return Failure(**{**values, **changes})


def test_an_exception_ends_its_trajectory_and_no_other(run: Any) -> None:
    group = run("ok", "raise", "three rows", "raise")
    assert group.status == "finished"
    rest, failures = split_failures(group.batch)
    assert sorted(rest.keys) == ["g_0_0", "g_2_0", "g_2_1", "g_2_2"] and count_trajectories(rest) == 2
    places = [(f.phase, f.step, f.index, f.session, f.uid) for f in failures]
    assert places == [("train", 4, 7, 1, "g"), ("train", 4, 7, 3, "g")]
    assert {(f.type, f.message) for f in failures} == {("LookupError", "no such page")}
    assert failures[0].where.endswith("in ScriptedLoop.run") and "no such page" in str(failures[0].traceback)
    # Gone from the queue too, and the others are as they were.
    assert set(tq.kv_list("train")["train"]) == {"g", *rest.keys}
    data = tq.kv_batch_get(keys=rest.keys, partition_id="train", select_fields=["responses"])
    lengths = dict(zip(rest.keys, map(len, data["responses"].unbind()), strict=True))
    assert lengths == {"g_0_0": 3, "g_2_0": 5, "g_2_1": 6, "g_2_2": 7}


def test_an_exception_of_the_reward_function_is_told_with_its_line(run: Any) -> None:
    group = run("reward", "ok")
    rest, [failed] = split_failures(group.batch)
    assert group.status == "finished" and rest.keys == ["g_1_0"]
    assert (failed.type, failed.message) == ("ZeroDivisionError", "the reward of test")
    assert failed.where.endswith("reward.py:4 in compute_score")
    assert "compute_score" in str(failed.traceback) and "\x1b" not in str(failed.traceback)


def test_a_reward_without_a_verdict_leaves_its_trajectory_out_and_names_the_judge(run: Any) -> None:
    rest, [failed] = split_failures(run("reward", "ok", truth="no judge").batch)
    assert rest.keys == ["g_1_0"] and failed.type == "code_judge.errors.JudgeUnavailable"
    assert failed.message == "no answer within 180 s"


def test_what_was_stored_of_a_trajectory_gives_way_to_its_failure(run: Any) -> None:
    group = run("not storable", "ok")
    assert sorted(group.batch.keys) == ["g_0_0", "g_1_0"] and group.status == "finished"
    [tag] = [tag for key, tag in zip(group.batch.keys, group.batch.tags, strict=True) if key == "g_0_0"]
    assert tag == {
        "status": "success", "failed": True, "prompt_len": 1, "response_len": 1, "seq_len": 2,
        "global_steps": 4, "min_global_steps": 4, "max_global_steps": 4,
    }  # fmt: skip
    rest, [failed] = split_failures(group.batch)
    assert "cannot pickle '_thread.lock' object" in failed.message and rest.keys == ["g_1_0"]


def test_upstreams_worker_would_leave_keys_behind_that_hold_nothing(
    config: DictConfig, reward_worker: Any, clean_queue: None
) -> None:
    # Why ours clears them: the trainer stumbles over rows without tags.
    upstream = CleanerAgentLoopWorker.__mro__[1](config, None, None, [reward_worker])
    group = make_group(upstream, ["not storable", "ok"], "train")
    empty = sorted(key for key, tag in zip(group.batch.keys, group.batch.tags, strict=True) if not tag)
    assert (group.status, empty) == ("failure", ["g_0_0", "g_0_1", "g_0_2"])


def test_an_agent_loop_that_returns_nothing_has_failed(run: Any) -> None:
    group = run("nothing", "ok")
    _, [failed] = split_failures(group.batch)
    assert (group.status, failed.type) == ("finished", "RuntimeError") and "empty list" in failed.message


def test_a_cancelled_trajectory_is_no_failure_row_but_is_missed(run: Any, tmp_path: Path) -> None:
    group = run("cancel", "ok")
    rest, failures = split_failures(group.batch)
    assert (group.status, rest.keys, failures) == ("failure", ["g_1_0"], [])
    monitor = FailureMonitor(tmp_path / "failures.jsonl", max_share=0.5, strict=False)
    metrics = monitor.observe("train", 4, failures, expected=2, arrived=count_trajectories(rest))
    assert metrics == {
        "rollout/failed_trajectories": 1, "rollout/failed_share": 0.5, "rollout/failure/unrecorded": 1,
    }  # fmt: skip
    assert "1 trajectories are missing" in json.loads(monitor.path.read_text())["message"]


def test_failure_rows_can_be_read_in_one_batch_with_real_ones(run: Any) -> None:
    batch = in_dataset_order(run("ok", "raise", "three rows").batch)
    assert batch.keys == ["g_0_0", "g_1_0", "g_2_0", "g_2_1", "g_2_2"]
    everything = tq.kv_batch_get(keys=batch.keys, partition_id="train")
    assert {*READ_BY_VERL, *trajectory_rows._FIELDS, "index"} <= set(everything.keys())
    for key in batch.keys:
        # A row lacks nothing and has nothing of its own: fields that only some rows have cannot be asked for.
        assert set(tq.kv_batch_get(keys=[key], partition_id="train").keys()) == set(everything.keys())
    data = tq.kv_batch_get(keys=batch.keys, partition_id="train", select_fields=READ_BY_VERL)
    assert data["rm_scores"].sum(dim=1).tolist() == [1.0, 0.0, 1.0, 1.0, 1.0]
    assert data.pop("num_turns").tolist() == [2, 0, 2, 2, 2] and data.pop("uid").tolist() == ["g"] * 5
    assert data["responses"].to_padded_tensor(padding=0).shape == (5, 7)
    headers = [row["header"] for row in trajectory_rows.read_rows(batch)]
    assert {(h["session"], h["reward"]) for h in headers} == {(0, 1.0), (1, 0.0), (2, 1.0)}
    mask = tq.kv_batch_get(keys=["g_1_0"], partition_id="train", select_fields=["response_mask", "loss_mask"])
    assert mask["response_mask"].sum() == mask["loss_mask"].sum() == 0


def test_validation_failures_are_failures_of_validation(run: Any) -> None:
    rest, [failed] = split_failures(run("raise", "ok", partition="val").batch)
    assert (failed.phase, rest.partition_id, rest.keys) == ("val", "val", ["g_1_0"])
    assert "g_0_0" not in tq.kv_list("val")["val"]


def test_verls_replay_buffer_gives_out_a_group_with_failures_like_any_other(run: Any) -> None:
    run("raise", "ok", "raise")
    rest, failures = split_failures(sample("train", batch_size=1))
    assert [f.session for f in failures] == [0, 2] and rest.keys == ["g_1_0"]
    assert rest.tags[0]["seq_len"] == 7 and "failed" not in rest.tags[0]


def test_a_batch_without_failures_is_passed_on_without_asking_the_queue() -> None:
    batch = KVBatchMeta(
        ["nowhere_0_0", "nowhere_0_1", "pad_0_0"], [{}, {}, {"is_padding": True}], "no partition"
    )
    assert split_failures(batch) == (batch, []) and count_trajectories(batch) == 1


class FailingServer:
    """In place of verl's server client: answers, but for every second request."""

    def __init__(self) -> None:
        self.requests = 0

    async def generate(self, request_id: str, *, prompt_ids: list[int], **kwargs: Any) -> TokenOutput:
        self.requests += 1
        if self.requests % 2 == 0:
            raise ConnectionError("the rollout server is gone")
        extra = {"global_steps": 4, "min_global_steps": 4, "max_global_steps": 4}
        return TokenOutput(token_ids=[8, 9], log_probs=[-1.0, -2.0], num_preempted=0, extra_fields=extra)


def test_the_manager_that_verl_loads_by_name_runs_our_worker_in_training_and_in_validation(
    config: DictConfig, reward_worker: Any, clean_queue: None
) -> None:
    manager = make_manager(config, reward_worker, FailingServer())
    found = {}
    for partition in ("train", "val"):
        manager.generate_sequences(two_prompts(partition))
        batch = sample(partition, batch_size=2)
        # Rows of verl's own agent loop have the same fields.
        kinds = {frozenset(tq.kv_batch_get(keys=[key], partition_id=partition).keys()) for key in batch.keys}
        assert len(kinds) == 1
        rest, failures = split_failures(batch)
        found[partition] = (len(rest), [(f.type, f.message, f.phase) for f in failures])
        assert {f.index for f in failures} <= {3, 5} and "FailingServer.generate" in failures[0].where
    for actor in manager.agent_loop_workers:
        ray.kill(actor)
    gone = ("ConnectionError", "the rollout server is gone")
    # rollout.n is 4 in training, val_kwargs.n is 1.
    assert found == {"train": (4, [(*gone, "train")] * 4), "val": (1, [(*gone, "val")])}


class SilentServer:
    """In place of verl's server client: takes requests and never answers."""

    async def generate(self, request_id: str, **kwargs: Any) -> TokenOutput:
        return await asyncio.Future()


def test_a_worker_that_is_killed_ends_the_trainers_waiting(
    config: DictConfig, reward_worker: Any, clean_queue: None
) -> None:
    manager = make_manager(config, reward_worker, SilentServer())
    inner = ReplayBuffer("sync", OmegaConf.create(), None, "drop", OmegaConf.create(), poll_interval=0.01)
    buffer = OrderedReplayBuffer(inner, lambda batch, step, prompts: (batch, {}))
    checks = []

    def check() -> None:
        manager.check_workers()
        checks.append(time.monotonic())
        if len(checks) == 20:  # all is well, until here
            ray.kill(manager.agent_loop_workers[0])

    buffer.watch(check)
    manager.generate_sequences(two_prompts("train"))
    with pytest.raises(RuntimeError, match=r"agent-loop worker 0 is gone.*resume_mode=auto") as told:
        buffer.sample(4, "train", 2)
    assert isinstance(told.value.__cause__, ray.exceptions.ActorDiedError)
    assert len(checks) >= 20 and time.monotonic() - checks[19] < 5


def make_manager(config: DictConfig, reward_worker: Any, server: Any) -> Any:
    """As verl makes it, from its name in the configuration."""
    manager_class = load_class_from_fqn("cleaner.rollout_worker.CleanerAgentLoopManager", "AgentLoopManager")
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        return manager_class.create(
            config=config, llm_client=server, teacher_client=None, reward_loop_worker_handles=[reward_worker]
        )
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def two_prompts(partition: str) -> Any:
    """A batch as verl's trainer submits it, with its groups registered."""
    uids = [f"{partition}{i}" for i in range(2)]
    tag = {"is_prompt": True, "status": "pending", "global_steps": 4}
    tq.kv_batch_put(keys=uids, partition_id=partition, tags=[tag, tag])
    columns = {
        "uid": uids,
        "data_source": ["a", "b"],
        "raw_prompt": [[{"role": "user", "content": text}] for text in ("x", "y")],
        "reward_model": [{"ground_truth": "fine"}] * 2,
    }
    batch = tu.get_tensordict({"index": np.array([3, 5]), **columns})
    tu.assign_non_tensor_data(batch, "global_steps", 4)
    if partition == "val":
        tu.assign_non_tensor_data(batch, "validate", True)
    return batch


def sample(partition: str, batch_size: int) -> KVBatchMeta:
    buffer = ReplayBuffer("sync", OmegaConf.create(), None, "drop", OmegaConf.create(), poll_interval=0.01)
    return buffer.sample(global_steps=4, partition_id=partition, batch_size=batch_size)[0]


def caught(make: Any) -> Exception:
    try:
        make()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def raising(error: Exception) -> Any:
    def go() -> None:
        raise error

    return go


def recurse() -> None:
    recurse()


def test_an_exception_that_cannot_be_printed_is_described_all_the_same() -> None:
    told = describe_exception(caught(raising(Unspeakable())))
    assert (
        told["type"].endswith("test_failures.Unspeakable") and "__str__ raised ValueError" in told["message"]
    )
    assert "in go" in told["traceback"]


def test_huge_texts_keep_head_and_tail_and_the_frames() -> None:
    told = describe_exception(caught(raising(ValueError("a" * 5_000_000 + "z"))))
    assert len(told["message"]) < 2_100 and len(told["traceback"]) < 12_100
    assert told["message"].startswith("aaa") and told["message"].endswith("az")
    assert "(4998001 characters left out)" in told["message"] and "in go" in told["traceback"]
    deep = describe_exception(caught(recurse))
    assert deep["type"] == "RecursionError" and len(deep["traceback"]) < 12_100
    assert "in caught" in deep["traceback"] and "maximum recursion" in deep["traceback"]


def test_lone_surrogates_become_escapes() -> None:
    told = describe_exception(caught(raising(KeyError("half \ud83d"))))
    assert all(text.encode() for text in told.values()) and "ud83d" in told["message"]


def test_the_cause_of_a_cause_is_in_the_traceback() -> None:
    def go() -> None:
        try:
            raise OSError(111, "refused")
        except OSError as error:
            raise RuntimeError("no answer") from error

    told = describe_exception(caught(go))
    assert told["type"] == "RuntimeError" and "refused" in told["traceback"]


def test_the_place_is_our_innermost_frame_and_else_the_innermost_one() -> None:
    ours = describe_exception(caught(lambda: trajectory_rows.column_values(5)))
    assert ours["where"].startswith("cleaner.trajectory_rows:") and ours["where"].endswith("in column_values")
    # json's encoder raises, further in than our function.
    through = describe_exception(caught(lambda: append_json_lines(Path("never made"), [{"a": object()}])))
    assert "in append_json_lines" in through["where"] and "json/encoder.py" in through["traceback"]
    foreign = describe_exception(caught(lambda: json.loads("{")))
    assert foreign["where"].startswith("json.decoder:")
    assert foreign["type"] == "json.decoder.JSONDecodeError"


def test_failures_are_counted_and_written(tmp_path: Path) -> None:
    monitor = FailureMonitor(tmp_path / "run" / "failures.jsonl", max_share=0.5, strict=False)
    assert monitor.observe("train", 1, [], 8) == {
        "rollout/failed_trajectories": 0,
        "rollout/failed_share": 0.0,
    }
    assert not monitor.path.exists()
    failures = [failure(), failure(session=1), failure(session=2, type="a.<locals>.B", message="half \ud83d")]
    assert monitor.observe("train", 2, failures, 8) == {
        "rollout/failed_trajectories": 3, "rollout/failed_share": 0.375,
        "rollout/failure/ValueError": 2, "rollout/failure/a._locals_.B": 1,
    }  # fmt: skip
    lines = [json.loads(line) for line in monitor.path.read_bytes().splitlines()]
    assert list(lines[0]) == [
        "schema", "phase", "step", "index", "session", "uid", "type", "message", "where", "traceback",
    ]  # fmt: skip
    assert [(line["session"], line["traceback"] is None) for line in lines] == [
        (0, False),
        (1, True),
        (2, False),
    ]


def test_batches_of_one_validation_are_added_up(tmp_path: Path) -> None:
    monitor = FailureMonitor(tmp_path / "failures.jsonl", max_share=0.5, strict=False)
    monitor.observe("val", 0, [failure(phase="val")], 4)
    assert monitor.observe("val", 0, [failure(phase="val")], 4)["rollout/failed_share"] == 0.25
    assert monitor.observe("train", 1, [], 4)["rollout/failed_trajectories"] == 0


def test_a_prompt_that_asked_for_more_trajectories_does_not_make_the_share_larger(tmp_path: Path) -> None:
    monitor = FailureMonitor(tmp_path / "failures.jsonl", max_share=0.3, strict=False)
    metrics = monitor.observe("train", 1, [failure()], expected=2, arrived=3)
    assert metrics["rollout/failed_share"] == 0.25 and "rollout/failure/unrecorded" not in metrics


@pytest.mark.parametrize(
    ("max_share", "strict", "failed", "ends"),
    [
        (0.5, False, 4, None),
        (
            0.5,
            False,
            5,
            "more than cleaner.failures.max_share=0.5.*resume from the last checkpoint, or raise it",
        ),
        (0.0, False, 1, "more than cleaner.failures.max_share=0"),
        (1.0, False, 7, None),
        (1.0, False, 8, "Nothing is left of the batch"),
        (1.0, True, 0, None),
        (1.0, True, 1, "strict=true ends the run at the first one.*set it to false"),
    ],
)
def test_the_run_ends_in_strict_mode_above_the_share_or_with_nothing_left(
    tmp_path: Path, max_share: float, strict: bool, failed: int, ends: str | None
) -> None:
    monitor = FailureMonitor(tmp_path / "failures.jsonl", max_share, strict)
    failures = [failure(session=i) for i in range(failed)]
    if ends is None:
        assert monitor.observe("train", 3, failures, 8)["rollout/failed_trajectories"] == failed
        return
    with pytest.raises(TooManyFailures, match=f"train, step 3: {failed} of 8 trajectories failed.*{ends}"):
        monitor.observe("train", 3, failures, 8)
    assert len(monitor.path.read_text().splitlines()) == failed


def test_the_end_of_a_run_names_the_most_frequent_cause_and_reaches_the_driver(tmp_path: Path) -> None:
    monitor = FailureMonitor(tmp_path / "failures.jsonl", max_share=0.1, strict=False)
    rare, often = failure(), failure(type="a.Gone", where="cleaner.y:2 in g", message="\x1b[31mno\nserver")
    with pytest.raises(TooManyFailures) as raised:
        monitor.observe("train", 3, [rare, often, often], 8)
    message = str(pickle.loads(pickle.dumps(raised.value)))
    assert r"Most frequent (2 of 3): a.Gone at cleaner.y:2 in g: '\x1b[31mno\nserver'" in message
    assert str(monitor.path) in message and "(38%)" in message


def test_a_full_disk_says_which_file_what_to_do_and_what_had_failed() -> None:
    monitor = FailureMonitor(Path("/dev/full"), max_share=1.0, strict=True)
    with pytest.raises(
        OSError, match="cannot write failed trajectories to /dev/full.*Free the disk.*ValueError at"
    ):
        monitor.observe("train", 1, [failure()], 8)


def test_what_a_full_disk_cuts_short_is_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "failures.jsonl"
    append_json_lines(path, [{"a": 1}])
    whole = path.read_bytes()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError):
            append_json_lines(path, [{"b": "x" * 300}] * 10)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_bytes() == whole
