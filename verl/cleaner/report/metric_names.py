"""The names under which a run logs what the report shows.

SAAR's names are those of `cleaner.saar.statistics.aggregate`, logged as they are for training and with the
prefix `val/` for validation. Timing and length names are verl's. A run may lack any of them.
"""

from __future__ import annotations

VALIDATION = "val/"

TRAINING_ACCURACY = ("accuracy", "reward/accuracy")
# Ours, else verl's.
TRAINING_REWARD = ("reward", "critic/score/mean")
VALIDATION_ACCURACY = "val/accuracy"
# verl's own validation accuracy, one name a data source: val-core/<data source>/acc/mean@<n>.
VALIDATION_CORE = "val-core/"

TOOL_CALLS = "tool_calls/total"
TOOL_SUCCESS = "tool_calls/success_rate"
FIRST_ATTEMPT = "tool_calls/first_attempt_success_rate"
FAILURES = "tool_calls/failure/"

TRIGGERED = "rollback/triggered"
RECOVERED = "rollback/recovered"
EXHAUSTED = "rollback/exhausted"
SHALLOW = "rollback/shallow"
DEEP = "rollback/deep"
DISCARDED_TOKENS = "rollback/discarded_tokens"
LOOKAHEAD_TOKENS = "rollback/lookahead_tokens"
LOOKAHEAD_SECONDS = "rollback/lookahead_seconds"
GENERATED_TOKENS = "rollback/generated_tokens"
DISCARDED_SHARE = "rollback/discarded_token_share"
# Mean tokens of a response as it is trained, and as it would be with its failing turns left in.
PURIFIED_LENGTH = "rollback/purified_length"
SAMPLED_LENGTH = "rollback/sampled_length"

RESPONSE_LENGTH = "response_length/mean"
RESPONSE_LENGTH_MAX = "response_length/max"

TIMING = "timing_s/"
STEP_SECONDS = "timing_s/step"
TESTING_SECONDS = "timing_s/testing"
