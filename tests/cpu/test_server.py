"""The server's answers and its control, without Ray: the class is a plain object with async methods."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel
from verl.workers.config import HFModelConfig, RolloutConfig

from cleaner.cpu.options import HFServerOptions
from cleaner.cpu.server import HFServer

from .conftest import prompts

MakeServer = Callable[..., HFServer]


@pytest.fixture
def make_server(model_directory: Path) -> Iterator[MakeServer]:
    servers = []

    def make(options: dict[str, Any] | None = None, awaits_weights: bool = True, **config: Any) -> HFServer:
        values = dict(
            name="hf_server", prompt_length=60, response_length=40, tensor_model_parallel_size=1, load_format="auto",
            free_cache_engine=False, max_num_seqs=16,
        )  # fmt: skip
        server = HFServer(
            RolloutConfig(**{**values, **config}),
            HFModelConfig(path=str(model_directory)),
            HFServerOptions(**{"dtype": "float64", **(options or {})}),
            awaits_weights=awaits_weights,
        )
        servers.append(server)
        return server

    yield make
    for server in servers:
        server._loop.close()


def params(**changes: Any) -> dict[str, Any]:
    return {
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": -1,
        "logprobs": True,
        "seed": 1,
        "ignore_eos": True,
        **changes,
    }


def ask(server: HFServer, prompt: list[int], request_id: str = "r", **changes: Any) -> Any:
    return server.generate(request_id=request_id, prompt_ids=prompt, sampling_params=params(**changes))


async def send_weights(server: HFServer, model: PreTrainedModel, version: int) -> None:
    await server.begin_weight_update()
    named = list(model.state_dict().items())
    await server.load_weights(named[:3])
    await server.load_weights(named[3:])
    await server.finish_weight_update(version)


def other_weights(model_directory: Path) -> PreTrainedModel:
    model = AutoModelForCausalLM.from_pretrained(model_directory)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
    return model


def test_concurrent_requests_with_unlike_parameters_get_their_own_answers(make_server):
    async def run() -> list:
        some = prompts(12, seed=1)
        kinds = [{}, {"temperature": 0}, {"top_p": 0.8, "temperature": 0.7}, {"max_tokens": 3}]
        requests = [ask(server, p, seed=i, **kinds[i % 4]) for i, p in enumerate(some)]
        return await asyncio.gather(*requests)

    server = make_server()
    first = asyncio.run(run())
    assert [len(a.token_ids) for a in first[3::4]] == [3, 3, 3]
    assert all(len(a.token_ids) == len(a.log_probs) and a.stop_reason == "completed" for a in first)
    second = make_server()
    server = second
    assert [(a.token_ids, a.log_probs) for a in asyncio.run(run())] == [
        (a.token_ids, a.log_probs) for a in first
    ]


def test_answers_end_at_the_model_end_token_unless_told_otherwise(make_server):
    async def run() -> tuple:
        free = await ask(server, [5, 6], seed=0, max_tokens=40)
        stop = next(t for t in free.token_ids if t != free.token_ids[0])
        server._eos = (stop,)
        return (
            free,
            stop,
            await ask(server, [5, 6], seed=0, ignore_eos=False),
            await ask(server, [5, 6], seed=0),
        )

    server = make_server()
    assert server._eos == (1,)
    free, stop, ended, ignored = asyncio.run(run())
    assert ended.token_ids == free.token_ids[: free.token_ids.index(stop) + 1]
    assert ended.extra_fields["finish_reason"] == "stop"
    assert ignored.token_ids == free.token_ids


def test_lengths_bound_every_answer(make_server):
    async def run() -> list:
        return [
            len((await ask(server, [3] * length, **more)).token_ids)
            for length, more in [
                (10, {}),
                (70, {}),
                (99, {}),
                (10, {"max_tokens": 90}),
                (70, {"max_tokens": 90}),
            ]
        ]

    server = make_server()
    assert asyncio.run(run()) == [40, 30, 1, 90, 30]


def test_a_prompt_without_room_gets_an_empty_answer_and_one_warning(make_server, caplog):
    async def run() -> list:
        return [await ask(server, [3] * length) for length in (100, 101, 500)]

    server = make_server()
    with caplog.at_level(logging.WARNING):
        answers = asyncio.run(run())
    assert [(a.token_ids, a.log_probs, a.extra_fields["finish_reason"]) for a in answers] == [
        ([], [], "no_room")
    ] * 3
    assert caplog.text.count("leaves room for") == 1


def test_what_the_server_cannot_do_is_refused_by_name(make_server):
    async def run(**more: Any) -> None:
        await server.generate(request_id="r", prompt_ids=[3], sampling_params=params(), **more)

    server = make_server()
    with pytest.raises(ValueError, match="token ids only, not image_data"):
        asyncio.run(run(image_data=[b"png"]))
    with pytest.raises(ValueError, match="not kv_transfer_params"):
        asyncio.run(run(kv_transfer_params={"x": 1}))
    with pytest.raises(ValueError, match="prompt is empty"):
        asyncio.run(ask(server, []))
    with pytest.raises(ValueError, match="unknown sampling parameter 'temprature'"):
        asyncio.run(ask(server, [3], temprature=1))
    assert len(asyncio.run(ask(server, [3])).token_ids) == 40


def test_requests_without_seed_differ_and_repeat_with_the_server_seed(make_server):
    async def run(server: HFServer) -> list:
        return [(await ask(server, [3, 4], seed=None)).token_ids for _ in range(3)]

    first, again, other = (asyncio.run(run(make_server(seed=seed))) for seed in (1, 1, 2))
    assert first == again != other
    assert len({tuple(tokens) for tokens in first}) == 3


def test_log_probs_are_float32_multiples_of_a_grid_and_left_out_on_request(make_server):
    server = make_server()
    answer = asyncio.run(ask(server, [3, 4]))
    values = torch.tensor(answer.log_probs, dtype=torch.float64)
    assert torch.equal(values.float().double(), values)
    small = values[values > -1] * 2**24
    assert torch.equal(small, small.round())
    assert asyncio.run(ask(server, [3, 4], logprobs=False)).log_probs is None


def test_a_weight_update_changes_answers_and_version_but_none_midway(make_server, model_directory):
    """A running request finishes on the old weights, one that comes meanwhile is answered by the new ones."""

    async def run() -> list:
        running = asyncio.create_task(ask(server, [3, 4, 5]))
        while not server._loop.load[0]:
            await asyncio.sleep(0.001)
        update = asyncio.create_task(send_weights(server, other_weights(model_directory), 7))
        await asyncio.sleep(0)
        late = asyncio.create_task(ask(server, [3, 4, 5]))
        await update
        return [await running, await late, await ask(server, [3, 4, 5])]

    server = make_server()
    server.global_steps = 6
    reference = asyncio.run(ask(server, [3, 4, 5]))
    old, late, new = asyncio.run(run())
    assert old.token_ids == reference.token_ids and old.log_probs == reference.log_probs
    assert [a.extra_fields["global_steps"] for a in (old, late, new)] == [6, 7, 7]
    assert late.token_ids == new.token_ids != old.token_ids


def test_no_answer_comes_from_weights_that_never_arrived(make_server, model_directory):
    async def run() -> Any:
        early = asyncio.create_task(ask(server, [3, 4]))
        await asyncio.sleep(0.05)
        assert not early.done()
        await send_weights(server, AutoModelForCausalLM.from_pretrained(model_directory), 0)
        return await early

    server = make_server(load_format="dummy")
    answer = asyncio.run(run())
    assert answer.extra_fields["global_steps"] == 0
    assert answer.token_ids == asyncio.run(ask(make_server(), [3, 4])).token_ids


def test_an_incomplete_or_foreign_update_is_an_error(make_server, model_directory):
    async def run(tensors: list, finish: bool = True) -> None:
        await server.begin_weight_update()
        await server.load_weights(tensors)
        if finish:
            await server.finish_weight_update(1)

    server = make_server()
    state = AutoModelForCausalLM.from_pretrained(model_directory).state_dict()
    with pytest.raises(ValueError, match=r"1 of \d+ weights did not arrive: model\.norm\.weight"):
        asyncio.run(run([(n, t) for n, t in state.items() if n != "model.norm.weight"]))
    with pytest.raises(ValueError, match="no parameter 'model.nrom.weight'"):
        asyncio.run(run([("model.nrom.weight", torch.ones(48))]))
    with pytest.raises(ValueError, match=r"shape \(3,\), the model's is \(48,\)"):
        asyncio.run(run([("model.norm.weight", torch.ones(3))]))
    with pytest.raises(RuntimeError, match="without begin_weight_update"):
        asyncio.run(make_server().load_weights([]))


def test_a_tied_head_may_arrive_under_one_name_or_both(make_server, model_directory):
    model = AutoModelForCausalLM.from_pretrained(model_directory)
    named = dict(model.state_dict())
    assert "lm_head.weight" in named
    del named["lm_head.weight"]

    async def run() -> None:
        await server.begin_weight_update()
        await server.load_weights(list(named.items()))
        await server.finish_weight_update(1)

    server = make_server()
    asyncio.run(run())


def test_abort_answers_everyone_and_later_requests_wait_or_are_rejected(make_server):
    async def run() -> None:
        running = [asyncio.create_task(ask(server, [3, 4], seed=i, max_tokens=90)) for i in range(3)]
        while (await server.stats())["generated_tokens"] < 3:
            await asyncio.sleep(0)
        result = await server.abort_all_requests()
        answers = await asyncio.gather(*running)
        assert result["aborted_count"] == 3
        assert all(a.stop_reason == "aborted" and len(a.token_ids) < 90 for a in answers)
        waiting = asyncio.create_task(ask(server, [3, 4]))
        await asyncio.sleep(0.02)
        assert not waiting.done()
        await server.resume_generation()
        assert len((await waiting).token_ids) == 40
        await server.abort_all_requests(reject_request=True)
        assert (await ask(server, [3, 4])).stop_reason == "aborted"
        await server.resume_generation()
        assert (await ask(server, [3, 4])).stop_reason == "completed"

    server = make_server()
    asyncio.run(run())


def test_sleep_frees_the_caches_and_wake_up_goes_on(make_server):
    async def run() -> None:
        before = await ask(server, [3, 4])
        await server.sleep()
        assert await asyncio.wrap_future(server._loop.call(lambda decoder: decoder.cache.rows)) == 0
        waiting = asyncio.create_task(ask(server, [3, 4]))
        await asyncio.sleep(0.02)
        await server.wake_up(tags=["weights"])
        assert not waiting.done()
        await server.wake_up(tags=["kv_cache"])
        assert (await waiting).token_ids == before.token_ids
        await server.release_kv_cache()
        await server.resume_kv_cache()
        assert (await ask(server, [3, 4])).token_ids == before.token_ids

    server = make_server(free_cache_engine=True)
    asyncio.run(run())


def test_sleep_does_nothing_when_the_caches_shall_stay(make_server):
    async def run() -> None:
        await server.sleep()
        assert len((await ask(server, [3, 4])).token_ids) == 40

    server = make_server(free_cache_engine=False)
    asyncio.run(run())


def test_more_requests_than_rows_are_served_in_turn(make_server):
    async def run() -> list:
        return await asyncio.gather(
            *[ask(server, [3, i], seed=i, max_tokens=5 + i % 3) for i in range(2, 42)]
        )

    server = make_server(max_num_seqs=4)
    assert [len(a.token_ids) for a in asyncio.run(run())] == [5 + i % 3 for i in range(2, 42)]


def test_a_failing_step_fails_its_requests_only(make_server):
    async def run() -> None:
        decoder = await asyncio.wrap_future(server._loop.call(lambda d: d))
        good = decoder.model.forward

        def broken(*args: Any, **kwargs: Any) -> None:
            raise RuntimeError("out of memory")

        decoder.model.forward = broken
        with pytest.raises(RuntimeError, match="out of memory"):
            await ask(server, [3, 4])
        decoder.model.forward = good
        assert len((await ask(server, [3, 4])).token_ids) == 40

    server = make_server()
    asyncio.run(run())


def test_a_server_whose_thread_dies_says_so_instead_of_hanging(make_server):
    async def run() -> None:
        decoder = await asyncio.wrap_future(server._loop.call(lambda d: d))

        def broken(*args: Any) -> None:
            raise RuntimeError("device lost")

        decoder.step = decoder.abort = broken
        with pytest.raises(RuntimeError, match="device lost"):
            await ask(server, [3, 4])
        with pytest.raises(
            RuntimeError, match=r"rollout server (died of RuntimeError: device lost|is shut down)"
        ):
            await ask(server, [3, 4])

    server = make_server()
    asyncio.run(run())


def test_a_client_that_gives_up_while_waiting_leaves_no_trace(make_server):
    async def run() -> None:
        await server.abort_all_requests()
        waiting = asyncio.create_task(ask(server, [3, 4]))
        await asyncio.sleep(0.01)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await server.resume_generation()
        assert len((await ask(server, [3, 5])).token_ids) == 40
        assert (await server.stats())["requests"] == 1

    server = make_server()
    asyncio.run(run())


def test_a_model_that_cannot_be_built_is_an_error_at_once(make_server, monkeypatch):
    monkeypatch.setattr(
        "cleaner.cpu.server.build_model", lambda *a, **k: (_ for _ in ()).throw(OSError("disk"))
    )
    with pytest.raises(OSError, match="disk"):
        make_server()
