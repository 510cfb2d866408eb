"""verl's task runner, which runs inside Ray, with our trainer registered in its process."""

import ray
from omegaconf import DictConfig
from verl.trainer.main_ppo import TaskRunnerV1

_UpstreamTaskRunner = TaskRunnerV1.__ray_metadata__.modified_class


@ray.remote
class CleanerTaskRunner(_UpstreamTaskRunner):  # type: ignore[misc, valid-type]
    """Given to `verl.trainer.main_ppo.run_ppo` as `task_runner_class`."""

    def run(self, config: DictConfig) -> None:
        import cleaner.trainer  # noqa: F401  (registers `cleaner_sync`)

        super().run(config)
