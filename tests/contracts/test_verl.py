"""What the trainer, the entry point and the package rely on in verl 0.9.1 beyond its public interface.

Each of these is private, or a habit, upstream. When the pin moves, this file says what has to be looked at again.
"""

import importlib.metadata
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def parameters(function: object) -> list[str]:
    return list(inspect.signature(function).parameters)  # type: ignore[arg-type]


def test_the_pinned_release_is_installed() -> None:
    assert importlib.metadata.version("verl") == "0.9.1"
    assert importlib.metadata.version("TransferQueue") == "0.1.11"


def test_our_verl_folder_does_not_shadow_the_installed_package() -> None:
    assert not (ROOT / "verl" / "__init__.py").exists()
    where = subprocess.run(
        [sys.executable, "-c", "import verl; print(verl.__file__)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "site-packages" in where


def test_verl_finds_our_plug_in_by_its_entry_point() -> None:
    points = importlib.metadata.entry_points(group="verl.plugins")
    assert [point.value for point in points if point.name == "cleaner"] == ["cleaner.cpu.plugin"]


@pytest.mark.parametrize(("platform", "expected"), [("cpu", "cpu"), (None, None)])
def test_the_cpu_platform_wins_only_when_it_is_asked_for(platform: str | None, expected: str | None) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "VERL_PLATFORM"}
    if platform:
        environment["VERL_PLATFORM"] = platform
    script = (
        "from verl.plugin.platform import get_platform\n"
        "try: print(type(get_platform()).__module__)\n"
        "except Exception as error: print('none', type(error).__name__)"
    )
    result = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    ours = "cleaner.cpu.platform" in result.stdout
    assert ours == (expected == "cpu"), result.stdout + result.stderr


def test_the_trainer_overrides_methods_that_exist_with_these_parameters() -> None:
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer

    assert parameters(PPOTrainer._build_replay_buffer) == ["self"]
    assert parameters(PPOTrainer._init_resource_pool_mgr) == ["self"]
    assert parameters(PPOTrainer._validate) == ["self"]
    assert parameters(PPOTrainer._compute_advantage) == ["self", "batch", "metrics"]
    expected = ["self", "batch", "metrics", "timing_raw", "global_steps", "epoch"]
    assert parameters(PPOTrainer._compute_metrics) == expected
    assert parameters(PPOTrainer.fit) == ["self", "agent_loop_manager"]


def test_an_evaluation_ends_after_the_validation_before_training_and_only_there() -> None:
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer

    source = inspect.getsource(PPOTrainer.fit)
    assert 0 < source.index('"val_before_train"') < source.index('"val_only"') < source.index("self.step(")
    assert source.count('"val_only"') == 1
    # The loop reads its batches from here, and asks these for metrics and dumps.
    validation = inspect.getsource(PPOTrainer._validate)
    assert "in self.val_dataloader" in validation and "return self._val_metrics_update(" in validation


def test_the_constructor_reads_the_mode_before_it_builds_the_replay_buffer() -> None:
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer

    source = inspect.getsource(PPOTrainer.__init__)
    assert 0 < source.index("self.trainer_mode =") < source.index("self._build_replay_buffer()")


def test_the_trainer_uses_nothing_of_the_replay_buffer_but_sample() -> None:
    from verl.trainer.ppo.v1 import trainer_base, trainer_sync

    source = inspect.getsource(trainer_base) + inspect.getsource(trainer_sync)
    uses = {part.split("(")[0].split()[0] for part in source.split("self.replay_buffer.")[1:]}
    assert uses == {"sample"}


def test_the_task_runner_can_be_subclassed_through_ray() -> None:
    from verl.trainer.main_ppo import TaskRunnerV1, run_ppo

    # Ray adds a parameter of its own behind them.
    assert parameters(TaskRunnerV1.__ray_metadata__.modified_class.run)[:2] == ["self", "config"]
    assert parameters(run_ppo) == ["config", "task_runner_class"]


def test_the_file_logger_truncates_its_file_so_that_a_resumed_run_must_set_it_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from verl.utils.tracking import FileLogger

    path = tmp_path / "metrics.jsonl"
    path.write_text("old\n")
    monkeypatch.setenv("VERL_FILE_LOGGER_PATH", str(path))
    FileLogger("project", "experiment").finish()
    assert path.read_text() == ""


def test_grpo_gives_a_group_of_one_its_own_baseline() -> None:
    import numpy as np
    import torch
    from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage

    rewards, mask = (
        torch.tensor([[0.0, 5.0], [0.0, 1.0], [0.0, 0.0]]),
        torch.tensor([[0.0, 0.0], [1, 1], [1, 1]]),
    )
    groups = np.array(["own", "g", "g"], dtype=object)
    advantages, _ = compute_grpo_outcome_advantage(rewards, mask, groups)
    assert advantages[0].abs().sum() == 0
    assert advantages[1, 0] == -advantages[2, 0] > 0


def test_the_agent_loop_manager_is_chosen_by_its_name_and_serves_training_and_validation() -> None:
    from verl.trainer.main_ppo import TaskRunnerV1
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer
    from verl.workers.config import AgentLoopConfig

    assert "agent_loop_manager_class" in inspect.signature(AgentLoopConfig).parameters
    source = inspect.getsource(TaskRunnerV1.__ray_metadata__.modified_class.init_agent_loop_manager)
    assert "load_class_from_fqn(manager_class_fqn" in source and ".create(" in source
    for method in (PPOTrainer._validate, PPOTrainer._submit_batch_to_rollout):
        assert "self.agent_loop_manager.generate_sequences(batch)" in inspect.getsource(method)


def test_the_manager_makes_its_workers_after_its_constructor_from_the_class_that_it_holds() -> None:
    from verl.experimental.agent_loop.agent_loop import AgentLoopManager
    from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ

    assert "self.agent_loop_workers_class = " in inspect.getsource(AgentLoopManagerTQ.__init__)
    assert "agent_loop_workers_class.options(" in inspect.getsource(AgentLoopManager._init_agent_loop_workers)
    assert "_init_agent_loop_workers" not in inspect.getsource(AgentLoopManager.__init__)


def test_one_coroutine_of_the_worker_is_one_trajectory_from_its_start_to_the_queue() -> None:
    from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopWorkerTQ

    worker = AgentLoopWorkerTQ.__ray_metadata__.modified_class
    # Ray adds a parameter of its own before `kwargs`.
    expected = ["self", "sampling_params", "trajectory", "agent_name", "trace"]
    assert parameters(worker._run_agent_loop)[:5] == expected
    assert parameters(worker._agent_loop_postprocess)[:3] == ["self", "output", "validate"]
    source = inspect.getsource(worker._run_agent_loop)
    assert source.index("hydra.utils.instantiate(") < source.index("agent_loop.run(")
    assert source.index("agent_loop.run(") < source.index(
        'self._agent_loop_postprocess(output, trajectory["validate"], **kwargs)'
    )
    # Scored before it is stored, and stored last.
    source = inspect.getsource(worker._agent_loop_postprocess)
    assert source.index("_compute_score") < source.index("tq.async_kv_batch_put(")
    assert 'keys.append(f"{uid}_{session_id}_{i}")' in source


def test_the_trainer_reads_these_fields_of_a_validation_batch() -> None:
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer

    source = inspect.getsource(PPOTrainer._validate)
    assert 'select_fields=["prompts", "responses"]' in source
    assert '["uid", "rm_scores", "num_turns", "reward_model", "data_source", "extra_fields"]' in source


def test_what_an_actor_raises_arrives_with_its_cause_and_the_text_of_its_traceback() -> None:
    from ray.exceptions import RayTaskError

    cause = KeyError("answer")
    trace = 'Traceback (most recent call last):\n  File "/x/reward.py", line 4, in compute_score\nKeyError: 1'
    arrived = RayTaskError("compute_score", trace, cause).as_instanceof_cause()
    assert isinstance(arrived, KeyError) and arrived.cause is cause
    assert '\n  File "/x/reward.py", line 4, in compute_score\n' in str(arrived)
