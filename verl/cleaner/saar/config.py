"""The rollback's settings, checked when they are read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from cleaner.errors import ConfigError
from cleaner.saar.outcome import INFRASTRUCTURE, MODEL_FAILURES, OK
from cleaner.saar.setting_checks import (
    bad_value,
    check_bool,
    check_choice,
    check_int,
    did_you_mean,
    known_keys,
    number_in,
)
from cleaner.saar.similarity import METRICS

GROUP = "cleaner.saar"

GRAFT_CREDITS = ("train", "mask", "importance", "gate", "distill", "contrast")
# Those that add a term of their own to the advantages.
TERMS = ("distill", "contrast")

_CHOICES: dict[str, tuple[str, ...]] = {
    "on_exhausted": ("keep_first", "keep_all", "mask"),
    "lookahead": ("sequential", "parallel"),
    "lookahead_context": ("cumulative", "latest"),
    "similarity": METRICS,
    "graft_credit": GRAFT_CREDITS,
    "credit_gate": ("none", "reward", "reward_graft"),
    "distill_advantage": ("positive", "signed"),
    "history": ("edited", "sampled"),
}


class CreditRow(StrEnum):
    """A sample of its own that a repair gives to training, in the context before the failing turn."""

    FAILING = "failing"  # the failing turn as it was sampled, of which the call is trained
    GRAFT = "graft"  # the repaired turn, of which the grafted tokens are trained


@dataclass(frozen=True)
class SaarConfig:
    """Settings of the similarity-aware adaptive rollback; defaults are the paper's (arXiv 2601.15141) where it has one.

    Attributes:
        max_retries: K >= 0, corrections sampled after a failing turn. 0 repairs nothing.
        gamma: in [0, 1]; from this similarity on only the call is replaced (shallow), below it the whole turn (deep).
        rollback_probability: in [0, 1], chance that a failing turn is rolled back; drawn from the seed.
        rollback_on: statuses (`program_error`, `timeout`, `format_error`) and exception class names that trigger.
        tolerance: 0 or 1, failing turns in a row that stay in the history, error and all, before one is rolled back.
        on_exhausted: what becomes of a turn whose K corrections all failed. `keep_first`: it stays as it was sampled,
            without the corrections; `keep_all`: they stay too, the history is what was sampled; `mask`: like
            `keep_first`, but the failing calls are not trained.
        lookahead: `sequential`: one correction after the other; `parallel`: K at once from the same context, of which
            the successful one that is most similar to the failed call is accepted.
        lookahead_context: what a correction sees: `cumulative`, all earlier attempts; `latest`, only the latest one.
        similarity: metric between failed and accepted call; see `cleaner.saar.similarity`.
        similarity_by_tool: other metrics for single tools, by the tool's name.
        rollback_in_validation: roll back in validation too.
        max_lookahead_tokens: most tokens that all corrections of one turn may take together; None: what the response
            length leaves.
        graft_credit: how grafted tokens are trained. `train`: as if sampled where they now stand (the paper's form);
            `mask`: not at all; `importance`: weighted by w = exp(log p in the clean context - log p as sampled),
            truncated at `graft_weight_cap`; `gate`: as `train`, but a graft whose geometric mean of w is below
            `gate_threshold` is not made: the look-ahead stays in the history as it was sampled; `distill`: with
            `distill_weight` added to the advantage of each token; `contrast`: as `distill`, and the failing call is
            trained too, in its own context, with the advantage -`distill_weight`.
        distill_weight: beta > 0, the weight of both terms, per token.
        distill_advantage: what beta is added to. `positive`: max(A, 0), so that a trajectory that ended badly doesn't
            push its graft down; `signed`: A as it is.
        credit_gate: where the terms of `distill` and `contrast` count. `none`: everywhere; `reward`: where the
            trajectory's answer is right; `reward_graft`: the graft's only there, the failing call's everywhere.
        history: `edited`: the repaired turn stands in the failing one's place; `sampled`: the look-ahead stays in the
            history as it was sampled, and the repaired turn, in the clean context, becomes a sample of its own, of
            which only the graft is trained (`distill` and `contrast` only).
        graft_weight_cap: > 0, truncation of w under `importance`. 2.0 is the default of verl's rollout correction.
        gate_threshold: in [0, 1].
        seed: base of the draw for `rollback_probability`, where the caller gives none.
    """

    max_retries: int = 3
    gamma: float = 0.5
    rollback_probability: float = 1.0
    rollback_on: tuple[str, ...] = MODEL_FAILURES
    tolerance: int = 0
    on_exhausted: str = "keep_first"
    lookahead: str = "sequential"
    lookahead_context: str = "cumulative"
    similarity: str = "difflib"
    similarity_by_tool: Mapping[str, str] = field(default_factory=dict)
    rollback_in_validation: bool = False
    max_lookahead_tokens: int | None = None
    graft_credit: str = "train"
    graft_weight_cap: float = 2.0
    gate_threshold: float = 0.5
    distill_weight: float = 0.5
    distill_advantage: str = "positive"
    credit_gate: str = "none"
    history: str = "edited"
    seed: int = 0

    def __post_init__(self) -> None:
        check_bool(_path("rollback_in_validation"), self.rollback_in_validation)
        for key in ("max_retries", "seed"):
            check_int(_path(key), getattr(self, key), 0)
        check_int(_path("tolerance"), self.tolerance, 0)
        if self.tolerance > 1:
            raise bad_value(_path("tolerance"), self.tolerance, "0 or 1")
        if self.max_lookahead_tokens is not None:
            check_int(
                _path("max_lookahead_tokens"), self.max_lookahead_tokens, 1, "or null (no limit of its own)"
            )
        for key in ("gamma", "rollback_probability", "gate_threshold"):
            object.__setattr__(self, key, number_in(_path(key), getattr(self, key), 0.0, 1.0))
        cap = number_in(_path("graft_weight_cap"), self.graft_weight_cap, 0.0, above=True)
        object.__setattr__(self, "graft_weight_cap", cap)
        weight = number_in(_path("distill_weight"), self.distill_weight, 0.0, above=True)
        object.__setattr__(self, "distill_weight", weight)
        object.__setattr__(self, "rollback_on", _rollback_on(self.rollback_on))
        object.__setattr__(self, "similarity_by_tool", _by_tool(self.similarity_by_tool))
        for key, choices in _CHOICES.items():
            check_choice(_path(key), getattr(self, key), choices)
        self._refuse_combinations()

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any] | None) -> "SaarConfig":
        """Read the group `cleaner.saar` (a dict or an OmegaConf node); absent keys take their defaults.

        Raises:
            ConfigError: names the unknown key and the valid ones, or the bad value and its range.
        """
        if mapping is not None and "enabled" in mapping:
            raise ConfigError(
                f"{GROUP}.enabled is no key any more: cleaner.strategy=saar switches rollback on, "
                "cleaner.strategy=none off."
            )
        return cls(**known_keys(cls, GROUP, mapping))

    def metric_for(self, tool: str) -> str:
        """The similarity metric for calls of `tool`."""
        return self.similarity_by_tool.get(tool, self.similarity)

    @property
    def has_terms(self) -> bool:
        """Whether the credit of grafts is a term of its own: `distill` or `contrast`."""
        return self.graft_credit in TERMS

    @property
    def credit_rows(self) -> frozenset[CreditRow]:
        """What a repair gives to training beside its trajectory, as samples of their own."""
        failing = {CreditRow.FAILING} if self.graft_credit == "contrast" else set()
        return frozenset(failing | ({CreditRow.GRAFT} if self.history == "sampled" else set()))

    def _refuse_combinations(self) -> None:
        if self.lookahead == "parallel" and self.on_exhausted == "keep_all":
            raise ConfigError(
                f"{GROUP}.on_exhausted='keep_all' with lookahead='parallel': corrections sampled side by side make no "
                "history. Use lookahead='sequential', or on_exhausted='keep_first' or 'mask'."
            )
        kept = self.on_exhausted == "keep_all" or self.graft_credit == "gate"
        if self.lookahead == "sequential" and self.lookahead_context == "latest" and kept:
            culprit = "on_exhausted='keep_all'" if self.on_exhausted == "keep_all" else "graft_credit='gate'"
            raise ConfigError(
                f"{GROUP}.{culprit} with lookahead_context='latest': each correction was sampled without the earlier "
                "ones before it, so together they are no history that was sampled. Use "
                "lookahead_context='cumulative'."
            )
        if not self.has_terms:
            self._refuse_without_terms()
        if self.history == "sampled" and self.on_exhausted != "keep_all":
            raise ConfigError(
                f"{GROUP}.history='sampled' with on_exhausted={self.on_exhausted!r}: corrections that all failed would "
                "be cut out of the history, or not trained, so it would not be what was sampled. Use "
                "on_exhausted='keep_all'."
            )

    def _refuse_without_terms(self) -> None:
        credit = f"graft_credit={self.graft_credit!r}"
        if self.history == "sampled":
            raise ConfigError(
                f"{GROUP}.history='sampled' with {credit}: nothing is grafted into a sampled history, so there is "
                "nothing that this credit could be given to. Use graft_credit='distill' or 'contrast', or "
                "cleaner.strategy=none for plain histories."
            )
        for key in ("credit_gate", "distill_advantage"):
            if (value := getattr(self, key)) != _CHOICES[key][0]:
                raise ConfigError(
                    f"{GROUP}.{key}={value!r} with {credit} has no effect: it is about the terms of "
                    "graft_credit='distill' and 'contrast'. Use one of these, or leave it out."
                )


def _path(key: str) -> str:
    return f"{GROUP}.{key}"


def _by_tool(value: object) -> dict[str, str]:
    path = _path("similarity_by_tool")
    if not isinstance(value, Mapping):
        raise bad_value(path, value, "a mapping from tool names to metrics, e.g. {lookup: json}")
    metrics = {str(tool): value[tool] for tool in value}
    for tool, metric in metrics.items():
        check_choice(f"{path}.{tool}", metric, METRICS)
    return metrics


def _rollback_on(value: object) -> tuple[str, ...]:
    path = _path("rollback_on")
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise bad_value(
            path, value, "a list of statuses and exception class names, e.g. [timeout, NameError]"
        )
    entries = tuple(value)
    for entry in entries:
        if entry in MODEL_FAILURES:
            continue
        if entry in (INFRASTRUCTURE, OK):
            raise ConfigError(f"{path}: {entry!r} can never trigger a rollback; leave it out.")
        # Exception classes start with a capital letter; anything else is a misspelt status.
        name = entry.rpartition(".")[2] if isinstance(entry, str) else ""
        if not (name.isidentifier() and name[0].isupper()):
            raise ConfigError(
                f"{path}: {entry!r} is neither a status nor an exception class."
                f"{did_you_mean(str(entry), MODEL_FAILURES)} Statuses: {', '.join(MODEL_FAILURES)}; "
                "or class names such as NameError."
            )
    return entries
