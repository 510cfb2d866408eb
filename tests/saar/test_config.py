"""Bad settings are refused with the key, what is wrong, and what would be right."""

import pytest
from omegaconf import OmegaConf

from cleaner.errors import ConfigError
from cleaner.saar.config import SaarConfig


def test_absent_keys_take_the_papers_values():
    assert SaarConfig.from_mapping(None) == SaarConfig.from_mapping({}) == SaarConfig()
    assert (SaarConfig().max_retries, SaarConfig().gamma, SaarConfig().graft_credit) == (3, 0.5, "train")


def test_an_omegaconf_group_is_read_like_a_dict():
    group = OmegaConf.create({"tolerance": 1, "gamma": 1, "rollback_on": ["timeout", "NameError"]})
    config = SaarConfig.from_mapping(group)
    assert config.tolerance == 1 and config.gamma == 1.0 and config.rollback_on == ("timeout", "NameError")


@pytest.mark.parametrize(
    "given, words",
    [
        ({"gama": 0.5}, ["cleaner.saar.gama", "Did you mean 'gamma'?", "max_retries"]),
        ({"gamma": 1.5}, ["gamma=1.5", "[0, 1]"]),
        ({"gamma": float("nan")}, ["[0, 1]"]),
        ({"gamma": "0.5"}, ["[0, 1]"]),
        ({"gamma": True}, ["[0, 1]"]),
        ({"max_retries": -1}, ["max_retries=-1", ">= 0"]),
        ({"max_retries": 2.5}, ["integer"]),
        ({"max_retries": True}, ["integer"]),
        ({"rollback_probability": -0.1}, ["rollback_probability=-0.1", "[0, 1]"]),
        ({"enabled": True}, ["cleaner.strategy=saar"]),
        ({"rollback_in_validation": 1}, ["rollback_in_validation=1", "true or false"]),
        ({"tolerance": 2}, ["0 or 1"]),
        ({"graft_weight_cap": 0}, ["graft_weight_cap=0", "> 0"]),
        ({"similarity_by_tool": {"lookup": "jsn"}}, ["similarity_by_tool.lookup", "Did you mean 'json'?"]),
        ({"lookahead": "parallel", "on_exhausted": "keep_all"}, ["keep_all", "side by side"]),
        ({"lookahead_context": "latest", "on_exhausted": "keep_all"}, ["keep_all", "cumulative"]),
        ({"lookahead_context": "latest", "graft_credit": "gate"}, ["gate", "cumulative"]),
        ({"max_lookahead_tokens": 0}, [">= 1", "null"]),
        ({"lookahead": "paralel"}, ["Did you mean 'parallel'?", "'sequential'"]),
        ({"on_exhausted": "keep"}, ["'keep_first'", "'mask'"]),
        ({"similarity": "levenshtein"}, ["'difflib'", "'ast'"]),
        ({"lookahead_context": "latst"}, ["'cumulative' or 'latest'", "Did you mean 'latest'?"]),
        ({"rollback_on": "timeout"}, ["a list"]),
        ({"rollback_on": ["timeot"]}, ["'timeot'", "Did you mean 'timeout'?"]),
        ({"rollback_on": ["infrastructure"]}, ["can never trigger"]),
        ({"rollback_on": [3]}, ["3"]),
    ],
)
def test_a_bad_value_is_refused_with_what_would_be_right(given, words):
    with pytest.raises(ConfigError) as error:
        SaarConfig.from_mapping(given)
    assert all(word in str(error.value) for word in words), str(error.value)
