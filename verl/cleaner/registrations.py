"""What verl must know of CLEANER, registered by importing this module (`actor_rollout_ref.model.external_lib`).

verl imports it in every process that loads the model's configuration: task runner, training workers, agent-loop
workers. It adds the agent loop `cleaner_agent` and the rollout server `hf_server`.
"""

import cleaner.agent_loop
import cleaner.cpu.backend  # noqa: F401
