"""Scoring given tokens: by verl's contract, equal to a plain forward pass, and without effect on what else runs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import MethodType
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm
from verl.workers.config import HFModelConfig, RolloutConfig

from cleaner.cpu import scoring
from cleaner.cpu.options import HFServerOptions
from cleaner.cpu.sampling import SamplingParams
from cleaner.cpu.scoring import ScoreRequest, ScoringDecoder, score_tokens
from cleaner.cpu.server import HFServer

from .conftest import MAX_LENGTH, prompts, request
from .test_server import ask, other_weights, send_weights

GRID = 2.0**-24
# Half a step of the grid, and half one of float32, whose steps are up to 2**-23 of the number.
ROUNDED = 1.5 * GRID
MakeServer = Callable[..., HFServer]


@pytest.fixture
def make_server(model_directory: Path) -> Iterator[MakeServer]:
    servers = []

    def make(dtype: str = "float64", **config: Any) -> HFServer:
        values = dict(
            name="hf_server", prompt_length=60, response_length=40, tensor_model_parallel_size=1, load_format="auto",
            free_cache_engine=False, max_num_seqs=16,
        )  # fmt: skip
        server = HFServer(
            RolloutConfig(**{**values, **config}),
            HFModelConfig(path=str(model_directory)),
            HFServerOptions(dtype=dtype),
        )
        servers.append(server)
        return server

    yield make
    for server in servers:
        server._loop.close()


def score(server: HFServer, tokens: list[int], **changes: Any) -> Any:
    given = {"max_tokens": 1, "temperature": 1.0, "prompt_logprobs": 0, "detokenize": False, **changes}
    return server.generate(request_id="s", prompt_ids=tokens, sampling_params=given)


def scores_of(answer: Any) -> list[float]:
    return [value for [value] in answer.extra_fields["prompt_logprobs"]]


def plain_model(directory: Path) -> PreTrainedModel:
    """transformers' own model in float64, but for its normalisation, which steps down to float32 whatever its type."""

    def in_float64(self: Qwen2RMSNorm, states: torch.Tensor) -> torch.Tensor:
        return self.weight * states / (states.pow(2).mean(-1, keepdim=True) + self.variance_epsilon).sqrt()

    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float64).eval()
    for module in model.modules():
        if isinstance(module, Qwen2RMSNorm):
            module.forward = MethodType(in_float64, module)  # type: ignore[method-assign]
    return model


def plain_scores(model: PreTrainedModel, tokens: list[int], temperature: float = 1.0) -> torch.Tensor:
    """Of tokens 1, 2, ... by one pass over the whole sequence."""
    ids = torch.tensor([tokens])
    with torch.no_grad():
        log_probs = torch.log_softmax(model(input_ids=ids, use_cache=False).logits[0] / temperature, -1)
    return log_probs[:-1].gather(1, ids[0, 1:, None]).squeeze(1)


def deviation(found: list[float], expected: Any) -> float:
    """The largest difference, relative above 1, of vectors of equal length."""
    assert len(found) == len(expected)
    expected = torch.as_tensor(expected, dtype=torch.float64)
    difference = (torch.tensor(found, dtype=torch.float64) - expected) / expected.abs().clamp(min=1)
    return float(difference.abs().max()) if len(found) else 0.0


async def submitted(server: HFServer, requests: list[Any]) -> list[asyncio.Task]:
    """Tasks whose requests all wait at the server's door, in this order; it opens on `release("test")`."""
    server._loop.hold("test")
    tasks = [asyncio.create_task(coroutine) for coroutine in requests]
    while server._loop.load[1] < len(tasks):
        await asyncio.sleep(0)
    return tasks


@pytest.mark.parametrize("tokens_per_pass", [1, 7, 1024])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_scores_are_those_of_a_plain_forward_pass(
    make_model, model_directory, tokens_per_pass: int, temperature: float
):
    plain = plain_model(model_directory)
    for fast in (True, False):
        model = make_model(fast=fast) if fast else plain
        for length in (1, 2, 8, 15, 16, MAX_LENGTH):
            [tokens] = prompts(1, seed=length, shortest=length, longest=length)
            found = score_tokens(model, tokens, temperature, tokens_per_pass)
            assert deviation(found, plain_scores(plain, tokens, temperature)) < 1e-9


def test_the_answer_has_the_shape_that_verls_servers_give(make_server, model_directory):
    server = make_server()
    server.global_steps = 4
    [tokens] = prompts(1, seed=3, shortest=30)
    answer = asyncio.run(score(server, tokens, temperature=0.7, seed=5, top_p=0.3, logprobs=True))
    assert answer.extra_fields["prompt_ids"] == [[token] for token in [*tokens[1:], 0]]
    assert answer.extra_fields["prompt_logprobs"][-1] == [0.0]
    expected = plain_scores(plain_model(model_directory), tokens, 0.7)
    assert deviation(scores_of(answer)[:-1], expected) <= ROUNDED
    assert (answer.token_ids, answer.log_probs, answer.stop_reason) == ([], [], "completed")
    assert (answer.extra_fields["global_steps"], answer.extra_fields["finish_reason"]) == (4, "scored")
    single = asyncio.run(score(server, [5], max_tokens=0))
    assert single.log_probs is None
    assert (single.extra_fields["prompt_ids"], single.extra_fields["prompt_logprobs"]) == ([[0]], [[0.0]])


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", GRID), ("float32", 2e-5)])
def test_a_sampled_token_is_scored_as_it_was_sampled_while_others_run(make_server, dtype, tolerance):
    some = prompts(6, seed=11)
    temperatures = [1.0, 0.6, 1.4, 0.0, 1.0, 0.9]

    async def sample() -> list:
        return await asyncio.gather(
            *[ask(server, p, seed=i, temperature=temperatures[i]) for i, p in enumerate(some)]
        )

    async def score_among_others(sampled: list) -> tuple[list, list]:
        order: list[str] = []

        async def note(kind: str, coroutine: Any) -> Any:
            answer = await coroutine
            order.append(kind)
            return answer

        others = [note("other", ask(server, [3, i], seed=i, max_tokens=90)) for i in range(2, 7)]
        scored = [
            note("scored", score(server, p + a.token_ids, temperature=temperatures[i]))
            for i, (p, a) in enumerate(zip(some, sampled, strict=True))
        ]
        tasks = await submitted(server, others + scored)
        server._loop.release("test")
        answers = await asyncio.gather(*tasks)
        assert order == ["scored"] * 6 + ["other"] * 5
        return [a.token_ids for a in answers[:5]], answers[5:]

    async def run_alone() -> list:
        answers = [await ask(server, [3, i], seed=i, max_tokens=90) for i in range(2, 7)]
        return [a.token_ids for a in answers]

    server = make_server(dtype)
    sampled = asyncio.run(sample())
    alone = asyncio.run(run_alone())
    among_scoring, all_scored = asyncio.run(score_among_others(sampled))
    assert dtype != "float64" or among_scoring == alone
    for prompt, answer, scored in zip(some, sampled, all_scored, strict=True):
        assert len(answer.token_ids) == 40
        assert deviation(scores_of(scored)[len(prompt) - 1 : -1], answer.log_probs) <= tolerance


def test_scoring_leaves_the_cache_the_pool_and_the_servers_seeds_alone(make_server):
    async def run(server: HFServer, between: bool) -> tuple[list, dict]:
        answers = []
        for i in range(3):
            answers.append((await ask(server, [3, 4, *range(20, 40 + i)], seed=None)).token_ids)
            if between:
                await score(server, list(range(2, 90)))
        return answers, await server.stats()

    (with_scoring, after), (without, plain) = (
        asyncio.run(run(make_server(seed=1), between)) for between in (True, False)
    )
    assert with_scoring == without
    for counter in ("requests", "prompt_tokens", "prefilled_tokens", "cached_tokens", "prefix_tokens"):
        assert after[counter] == plain[counter]


def test_scores_come_from_one_weight_version_which_the_answer_names(
    make_server, model_directory, monkeypatch
):
    [tokens] = prompts(1, seed=5, shortest=40)
    started, go_on = threading.Event(), threading.Event()

    def slow(*args: Any) -> list[float]:
        started.set()
        assert go_on.wait(30)
        return score_tokens(*args)

    async def run() -> list:
        early = asyncio.create_task(score(server, tokens))
        assert await asyncio.to_thread(started.wait, 30)
        update = asyncio.create_task(send_weights(server, new_model, 7))
        await asyncio.sleep(0)
        late = asyncio.create_task(score(server, tokens))
        await asyncio.sleep(0)
        assert server._loop.load == (1, 1) and not update.done()
        go_on.set()
        await update
        return [await early, await late]

    monkeypatch.setattr(scoring, "score_tokens", slow)
    new_model = other_weights(model_directory)
    old, new = plain_model(model_directory), plain_model(model_directory)
    new.load_state_dict(new_model.state_dict())
    server = make_server()
    server.global_steps = 6
    early, late = asyncio.run(run())
    assert [a.extra_fields["global_steps"] for a in (early, late)] == [6, 7]
    for answer, model in ((early, old), (late, new)):
        assert deviation(scores_of(answer)[:-1], plain_scores(model, tokens)) <= ROUNDED


def test_no_score_comes_from_weights_that_never_arrived(make_server, model_directory):
    async def run() -> Any:
        early = asyncio.create_task(score(server, [3, 4, 5]))
        await server.stats()  # the engine has been around
        await server.stats()
        assert not early.done()
        await send_weights(server, AutoModelForCausalLM.from_pretrained(model_directory), 0)
        return await early

    server = make_server(load_format="dummy")
    expected = plain_scores(plain_model(model_directory), [3, 4, 5])
    assert deviation(scores_of(asyncio.run(run()))[:-1], expected) <= ROUNDED


def test_an_abort_ends_waiting_scoring_without_scores(make_server):
    async def run() -> None:
        [waiting] = await submitted(server, [score(server, [3, 4, 5])])
        assert (await server.abort_all_requests(reject_request=True))["aborted_count"] == 1
        for answer in (await waiting, await score(server, [3, 4, 5])):
            assert (answer.stop_reason, answer.token_ids) == ("aborted", [])
            assert "prompt_logprobs" not in answer.extra_fields
        server._loop.release("test")
        await server.resume_generation()
        assert len(scores_of(await score(server, [3, 4, 5]))) == 3

    server = make_server()
    asyncio.run(run())


def test_a_failing_pass_fails_its_own_request_only(make_server, monkeypatch):
    def broken(*args: Any) -> None:
        raise RuntimeError("out of memory")

    async def run() -> None:
        generating, scored = await submitted(
            server, [ask(server, [3, 4], max_tokens=90), score(server, [3, 4, 5])]
        )
        server._loop.release("test")
        with pytest.raises(RuntimeError, match="out of memory"):
            await scored
        assert len((await generating).token_ids) == 90
        monkeypatch.undo()
        assert len(scores_of(await score(server, [3, 4, 5]))) == 3

    server = make_server()
    monkeypatch.setattr(scoring, "score_tokens", broken)
    asyncio.run(run())


def test_what_cannot_be_scored_is_refused(make_server):
    server = make_server()
    for tokens, changes, message in [
        ([3] * 101, {}, "cannot score 101 tokens; it must be 1 to 100"),
        ([], {}, "cannot score 0 tokens"),
        ([3], {"max_tokens": 5}, "generates nothing, so max_tokens must be 0 or 1, not 5"),
        ([3], {"max_tokens": None}, "must be 0 or 1, not None"),
        ([3], {"prompt_logprobs": 1}, "prompt_logprobs=1: must be 0"),
        ([3], {"prompt_logprobs": False}, "prompt_logprobs=False: must be 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            asyncio.run(score(server, tokens, **changes))
    assert len(scores_of(asyncio.run(score(server, [3] * 100)))) == 100


def test_running_requests_get_a_step_between_two_scores(make_model):
    decoder = ScoringDecoder(make_model(), max_length=MAX_LENGTH, max_rows=5)
    to_score = [ScoreRequest(prompt, SamplingParams(), 0, 0) for prompt in prompts(3, seed=2)]
    generating = request([3, 4], max_tokens=10)
    decoder.admit([to_score[0], generating, *to_score[1:]])
    assert (decoder.running, decoder.free_rows) == (4, 1)
    for number, expected in enumerate(to_score, start=1):
        [(ended, scores)] = decoder.step()
        assert ended is expected and len(scores.log_probs) == len(expected.prompt) - 1
        assert decoder.stats.generated_tokens == number


def test_a_pass_bounds_its_logits_and_no_token_passes_twice(make_model, monkeypatch):
    model = make_model()
    widths: list[int] = []
    forward = model.forward

    def spy(*args: Any, **kwargs: Any) -> Any:
        output = forward(*args, **kwargs)
        widths.append(output.logits.shape[1])
        return output

    [tokens] = prompts(1, shortest=40)
    expected = score_tokens(model, tokens)
    monkeypatch.setattr(model, "forward", spy)
    monkeypatch.setattr(scoring, "_LOGITS_PER_PASS", 6 * model.config.vocab_size + 5)
    assert deviation(score_tokens(model, tokens), expected) < 1e-9
    assert widths == [6] * 6 + [3]
