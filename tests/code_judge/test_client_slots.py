"""The one count of a process's programs, and which address is asked next."""

from __future__ import annotations

import asyncio
import os
import random

import pytest

from code_judge.addresses import Addresses
from code_judge.patience import Backoff
from code_judge.slots import SLOTS, Slots


async def settled():
    for _ in range(5):
        await asyncio.sleep(0)


def test_who_waits_is_let_in_in_the_order_of_arrival_and_a_large_one_is_not_overtaken():
    async def scene():
        slots, order = Slots(), []

        async def enter(name, programs):
            await slots.enter(["a"], programs, 4)
            order.append(name)

        await enter("first", 3)
        tasks = []
        for name, programs in (("large", 4), ("small", 1), ("smaller", 1)):
            tasks.append(asyncio.create_task(enter(name, programs)))
            await settled()
        assert order == ["first"]
        slots.leave("a", 3)
        await settled()
        assert order == ["first", "large"]
        slots.leave("a", 4)
        await asyncio.gather(*tasks)
        assert order == ["first", "large", "small", "smaller"] and slots.busy("a") == 2

    asyncio.run(scene())


def test_who_gives_up_waiting_lets_the_next_one_in():
    async def scene():
        slots = Slots()
        await slots.enter(["a"], 2, 4)
        large = asyncio.create_task(slots.enter(["a"], 4, 4))
        await settled()
        small = asyncio.create_task(slots.enter(["a"], 2, 4))
        await settled()
        assert not small.done()
        large.cancel()
        assert await small == "a"
        assert slots.busy("a") == 4
        slots.leave("a", 4)
        assert slots.busy("a") == 0

    asyncio.run(scene())


def test_a_place_that_is_given_to_one_who_leaves_in_that_moment_is_not_lost():
    async def scene():
        slots = Slots()
        await slots.enter(["a"], 1, 1)
        waiting = asyncio.create_task(slots.enter(["a"], 1, 1))
        await settled()
        slots.leave("a", 1)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert slots.busy("a") == 0
        assert await slots.enter(["a"], 1, 1) == "a"

    asyncio.run(scene())


def test_whoever_waits_for_several_addresses_gets_the_first_that_is_free():
    async def scene():
        slots = Slots()
        assert [await slots.enter(["a", "b"], 1, 1) for _ in range(2)] == ["a", "b"]
        waiting = asyncio.create_task(slots.enter(["a", "b"], 1, 1))
        await settled()
        slots.leave("b", 1)
        assert await waiting == "b"

    asyncio.run(scene())


def test_an_event_loop_that_is_gone_keeps_no_place():
    slots = Slots()
    loop = asyncio.new_event_loop()
    loop.run_until_complete(slots.enter(["a"], 1, 1))
    abandoned = loop.create_task(slots.enter(["a"], 1, 1))
    loop.run_until_complete(settled())
    loop.close()

    async def scene():
        waiting = asyncio.create_task(slots.enter(["a"], 1, 1))
        await settled()
        slots.leave("a", 1)
        assert await asyncio.wait_for(waiting, 5) == "a"

    asyncio.run(scene())
    assert slots.busy("a") == 1 and not abandoned.done()
    abandoned._log_destroy_pending = False


def test_a_forked_process_counts_anew():
    asyncio.run(SLOTS.enter(["fork"], 1, 1))
    child = os.fork()
    if child == 0:
        os._exit(SLOTS.busy("fork"))
    SLOTS.leave("fork", 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


class Time:
    now = 100.0

    def __call__(self):
        return self.now


def test_an_address_that_failed_rests_twice_as_long_each_time_and_is_tried_by_one_call():
    time = Time()
    addresses = Addresses(["a", "b"], time)
    rests = []
    for _ in range(9):
        for _ in range(3):  # requests that fail together are one fault
            addresses.failed("a")
        assert addresses.candidates() == ["b"]
        begin = time.now
        while "a" not in addresses.candidates():
            time.now += 0.25
        rests.append(time.now - begin)
        addresses.asked("a")
        assert addresses.candidates() == ["b"]
    assert rests == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    addresses.answered("a")
    assert sorted(addresses.candidates()) == ["a", "b"]
    addresses.failed("a")
    time.now += 0.5
    assert "a" in addresses.candidates()


def test_an_address_that_rests_is_asked_if_there_is_no_other_but_one_that_wants_time_is_not():
    time = Time()
    addresses = Addresses(["a", "b"], time)
    addresses.failed("a")
    addresses.busy("b", 3)
    assert addresses.candidates() == ["a"]
    addresses.busy("a", 2)
    assert addresses.candidates() == [] and addresses.busy_for() == pytest.approx(2)
    time.now += 2
    assert addresses.candidates() == ["a"]


def test_pauses_double_are_scattered_and_follow_the_seed():
    def pauses(seed):
        backoff = Backoff(0.05, random.Random(seed))
        return [backoff.pause() for _ in range(9)]

    for pause, whole in zip(pauses(1), [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5], strict=True):
        assert whole / 2 <= pause <= whole
    assert pauses(1) == pauses(1) != pauses(2)
    assert 10 <= Backoff(0.05, random.Random(1)).pause(10.0) <= 12
