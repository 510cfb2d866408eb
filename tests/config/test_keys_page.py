"""docs/keys.md: every key, default and limit on the page is the configuration's."""

import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from cleaner.config.documented_keys import DOCUMENTED_KEYS
from cleaner.config.settings import read_settings
from cleaner.errors import ConfigError

PAGE = (Path(__file__).parents[2] / "docs" / "keys.md").read_text(encoding="utf-8")
ROWS = {
    key: (default, values)
    for key, default, values in re.findall(r"^\| `(cleaner\.\S+)` \| `(.+?)` \| (.+?) \| .+ \|$", PAGE, re.M)
}
# What a key needs beside it to have an effect.
COMPANIONS = {
    "cleaner.saar.credit_gate": ["cleaner.saar.graft_credit=distill"],
    "cleaner.saar.distill_advantage": ["cleaner.saar.graft_credit=distill"],
    "cleaner.saar.history": ["cleaner.saar.graft_credit=distill", "cleaner.saar.on_exhausted=keep_all"],
}
INTERVAL = re.compile(r"(integer|number) (?:in ([\[(])([\d.]+), ([\d.]+)\]|(>=?) ([\d.]+))")


def flat(node: object, path: str = "cleaner") -> dict[str, object]:
    """The leaves of the composed group; a mapping that is a value of its own counts as one."""
    if not isinstance(node, dict) or path == "cleaner.saar.similarity_by_tool":
        return {path: node}
    return {key: leaf for name, below in node.items() for key, leaf in flat(below, f"{path}.{name}").items()}


@pytest.fixture(scope="module")
def composed() -> OmegaConf:
    with initialize_config_module("cleaner.config", version_base=None):
        return compose("cleaner")


def accepts(composed: OmegaConf, key: str, value: str) -> bool:
    """Whether the configuration with this one value passes the checks that precede every run."""
    # Only what the checks look at: copying the whole configuration a hundred times takes a while.
    rollout = {"name": "hf_server", "calculate_log_probs": True, "multi_turn": {"enable": True}}
    config = OmegaConf.create(
        {
            "cleaner": {**OmegaConf.to_container(composed.cleaner), "output_dir": "output"},
            "actor_rollout_ref": {"rollout": rollout},
            "algorithm": {"adv_estimator": "grpo", "filter_groups": {"enable": False}},
        }
    )
    # Negative samples come from repairs, so there must be some.
    chosen = [] if key == "cleaner.strategy" else ["cleaner.strategy=saar"]
    config.merge_with_dotlist([*chosen, *COMPANIONS.get(key, ()), f"{key}={value}"])
    try:
        read_settings(config)
    except ConfigError as error:
        assert key.rpartition(".")[2] in str(error)
        return False
    return True


def test_the_page_lists_every_key_with_its_default(composed: OmegaConf) -> None:
    wanted = flat(OmegaConf.to_container(composed.cleaner))
    assert {key: OmegaConf.create(f"x: {default}")._get_node("x")._value() if "${" in default
            else OmegaConf.to_container(OmegaConf.create(f"x: {default}"))["x"]
            for key, (default, _) in ROWS.items()} == wanted  # fmt: skip


@pytest.mark.parametrize("key", [key for key, (_, values) in ROWS.items() if INTERVAL.match(values)])
def test_the_limits_on_the_page_are_those_that_are_checked(composed: OmegaConf, key: str) -> None:
    kind, bracket, low, high, above, bound = INTERVAL.match(ROWS[key][1]).groups()
    least, is_open = low or bound, bracket == "(" or above == ">"
    below = float(least) - 1
    assert accepts(composed, key, least) is not is_open
    assert not accepts(composed, key, str(int(below) if kind == "integer" else below))
    assert accepts(composed, key, "null") is ("`null`" in ROWS[key][1])
    assert not accepts(composed, key, "many")
    if high:
        assert accepts(composed, key, high)
        assert not accepts(composed, key, str(float(high) + 0.1))


@pytest.mark.parametrize("key", [key for key, (_, values) in ROWS.items() if values.startswith("`")])
def test_the_choices_on_the_page_are_those_that_are_accepted(composed: OmegaConf, key: str) -> None:
    for choice in re.findall(r"`([^`]+)`", ROWS[key][1]):
        assert accepts(composed, key, choice), choice
    assert not accepts(composed, key, "no_such_choice")


def test_the_page_lists_the_documented_keys_and_what_they_mean() -> None:
    rows = re.findall(r"^\| `((?:actor_rollout_ref|algorithm)\.\S+)` \| `(\S+?)`", PAGE, re.M)
    assert dict(rows) == DOCUMENTED_KEYS
