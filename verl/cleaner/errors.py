"""Errors that CLEANER raises on purpose."""


class ConfigError(ValueError):
    """Bad input from the user: says what is wrong, where, and what to do. Raised before anything starts."""


class AlignmentError(RuntimeError):
    """Token ids, mask, log-probabilities and origins of a trajectory no longer fit each other: a bug, never data."""


class ToolInfrastructureError(RuntimeError):
    """A tool could not run for a reason that is not the model's doing: unreachable, overloaded or broken service.

    A tool raises it from `execute` to have the call counted as `infrastructure`, which never triggers a rollback. So is
    `code_judge.client.JudgeUnavailable`.
    """


class TooManyFailures(RuntimeError):
    """More trajectories failed than the configuration allows; the message says which, why, and what to do."""
