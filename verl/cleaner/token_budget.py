"""A budget of generated tokens: runs that do unlike things with a token are compared where they cost the same."""

from dataclasses import dataclass

from cleaner.errors import ConfigError
from cleaner.saar.setting_checks import check_int

_PATH = "cleaner.budget."


@dataclass(frozen=True)
class BudgetConfig:
    """The group `cleaner.budget`.

    Attributes:
        tokens: training ends with the step at which all training steps together have generated that many tokens,
            discarded ones and look-aheads included; None: no budget.
        validations: the run is validated as often, after equal shares of the budget, the last time at its end; 0: by
            `trainer.test_freq`, as without a budget.
    """

    tokens: int | None = None
    validations: int = 0

    def __post_init__(self) -> None:
        if self.tokens is not None:
            check_int(_PATH + "tokens", self.tokens, 1, "or null (no budget)")
        check_int(_PATH + "validations", self.validations, 0)
        if self.validations and self.tokens is None:
            raise ConfigError(
                f"{_PATH}validations={self.validations} divides a budget, but {_PATH}tokens is not set. Set it, or use "
                "trainer.test_freq."
            )

    def is_spent(self, tokens: float) -> bool:
        """Whether a run that has generated so many tokens ends."""
        return self.tokens is not None and tokens >= self.tokens

    def validates(self, before: float, after: float) -> bool:
        """Whether a share of the budget was completed by the step that went from `before` to `after` tokens."""
        if self.tokens is None or not self.validations:
            return False
        parts = [
            min(int(count * self.validations / self.tokens), self.validations) for count in (before, after)
        ]
        return parts[0] < parts[1]
