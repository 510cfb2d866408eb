"""Seeding ahead of the fork: of numpy by its key where that is known, else by its own function."""

from __future__ import annotations

import random
from types import SimpleNamespace

import numpy

from app.sandbox.seeds import Seeds, _of_numpy


def test_every_renewal_is_another_start_of_both_generators() -> None:
    seeds = Seeds()
    draws = set()
    for _ in range(20):
        seeds.renew()
        draws |= {("random", random.random()), ("numpy", numpy.random.rand())}
    assert len(draws) == 40


def test_numpys_key_is_written_where_its_state_says_it_is() -> None:
    renew = _of_numpy(numpy.random)
    numpy.random.seed(1)
    before = numpy.random.get_state()
    renew()
    after = numpy.random.get_state()
    assert (after[0], after[2]) == ("MT19937", 624)
    assert (before[1] != after[1]).mean() > 0.9, "not all of the key was renewed"


def test_a_numpy_that_shows_no_state_is_seeded_by_its_function() -> None:
    given: list[list[int]] = []
    renew = _of_numpy(SimpleNamespace(seed=given.append))
    renew()
    assert len(given) == 2 and all(len(seed) == 32 for seed in given) and given[0] != given[1]
