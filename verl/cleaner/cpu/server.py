"""The rollout server ``hf_server``: a Ray actor that answers verl's token-in, token-out requests.

It is meant for small models: one process, one device, no engine to install. Guarantees:

- **One weight version per answer.** A weight update lets running requests finish on the old weights and new ones wait
  until it is done; ``extra_fields["global_steps"]`` is the version that produced every token of the answer.
- **Log-probabilities** are of the sampled tokens at the request's temperature over the whole vocabulary (see
  ``cleaner.cpu.sampling``), rounded to multiples of 2**-24 (6e-8, float32's precision at 1), so that float64's last
  bits, which may depend on the batch's composition, do not show.
- **Seeds.** ``sampling_params["seed"]`` fixes a request's random numbers. In float64 its answer is then the same
  whatever else the server does. Without it, seeds come from the server's own generator (``rollout.seed``) in order of
  arrival.
- A prompt that leaves no room for one token gets an empty answer with ``finish_reason`` "no_room" and a log line; it
  raises nothing, for an exception would fail the trajectory's whole group.
- **Scoring.** ``sampling_params["prompt_logprobs"] = 0`` gives the log-probabilities of the prompt's own tokens, by
  the contract of verl's other servers, and generates nothing. They are taken at the request's temperature and rounded
  like a sampled token's: in float64 a token that is scored in the context in which it was sampled gets the number that
  it got then. (With vLLM and SGLang, verl notes, the temperature has no effect on them.)

``extra_fields`` of an answer: ``global_steps`` (int or None), ``num_cached_tokens`` (prompt tokens taken from the
prefix pool; it depends on what else happened), ``finish_reason`` ("stop", "length", "aborted", "no_room", "scored").
A scored answer has two more, of shape (prompt length, 1): ``prompt_ids``, whose element i is [token i + 1], and
``prompt_logprobs``, its log-probability given tokens 0 to i; the last element of both is [0]. An aborted one has none.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from typing import Any

import torch
from verl.utils.config import omega_conf_to_dataclass
from verl.utils.tokenizer import normalize_token_ids
from verl.workers.config import HFModelConfig, RolloutConfig
from verl.workers.rollout.replica import TokenOutput

from cleaner.cpu.decoder import Decoder
from cleaner.cpu.engine_loop import EngineLoop
from cleaner.cpu.model_loading import WeightReceiver, build_model, context_length, end_token_ids
from cleaner.cpu.options import HFServerOptions
from cleaner.cpu.requests import Request
from cleaner.cpu.sampling import SamplingParams
from cleaner.cpu.scoring import ScoreRequest, Scores, ScoringDecoder

logger = logging.getLogger(__name__)

_GRID = 2.0**24
_CPU_PASS = 1024  # tokens; a larger prefill pass outgrows a core's cache and is some 15 % slower
_UPDATE, _SLEEP, _ABORT = "weight update", "sleep", "abort"


class HFServer:
    """See the module's text. Every public method is part of what verl's replicas and clients call.

    Args:
        config: ``rollout`` configuration of verl.
        model_config: ``model`` configuration of verl.
        options: the server's own settings.
        replica_rank: number of this replica, from 0.
        awaits_weights: whether weights come from a trainer. If so, nothing is generated before the first update, and
            with ``load_format=dummy`` nothing is read from disk.

    Raises:
        ValueError: the model or a length setting cannot be served.
    """

    def __init__(
        self,
        config: RolloutConfig,
        model_config: Any,
        options: HFServerOptions,
        replica_rank: int = 0,
        awaits_weights: bool = True,
    ) -> None:
        self.config: RolloutConfig = omega_conf_to_dataclass(config)
        self.model_config: HFModelConfig = omega_conf_to_dataclass(model_config, dataclass_type=HFModelConfig)
        self.options, self.replica_rank = options, replica_rank
        self.global_steps: int | None = None
        self._max_length = context_length(self.config, self.model_config.hf_config)
        self._eos = end_token_ids(self.model_config)
        self._seeds = random.Random(f"{self.config.seed}/{replica_rank}")
        self._rejecting = False
        self._receiver: WeightReceiver | None = None
        self._has_weights = not awaits_weights or self.config.load_format != "dummy"
        self._warned_no_room = False
        self._loop = EngineLoop(self._build_decoder, options.num_threads)
        self._loop.wait_until_ready()
        if not self._has_weights:
            self._loop.hold(_UPDATE)

    def _build_decoder(self) -> ScoringDecoder:
        model = build_model(self.model_config, self.options, self._max_length, load=self._has_weights)
        return ScoringDecoder(
            model,
            max_length=self._max_length,
            max_rows=self.config.max_num_seqs,
            kv_bytes=int(self.options.kv_cache_gib * 2**30),
            prefix_bytes=int(self.options.prefix_cache_gib * 2**30),
            prefill_tokens=min(
                self.config.max_num_batched_tokens, _CPU_PASS if model.device.type == "cpu" else 2**31
            ),
        )

    async def get_server_address(self) -> str:
        """A name that tells this server from others; it isn't an HTTP address, there is no HTTP."""
        return f"hf_server-{self.replica_rank}.{os.uname().nodename}.{os.getpid()}"

    # -- generation ---------------------------------------------------------------------------------------------------

    async def generate(
        self,
        prompt_ids: list[int],
        sampling_params: dict[str, Any],
        request_id: str,
        image_data: Any = None,
        video_data: Any = None,
        audio_data: Any = None,
        mm_processor_kwargs: Any = None,
        priority: int = 0,
        **kwargs: Any,
    ) -> TokenOutput:
        """Continue a prompt, or score it.

        Args:
            prompt_ids: token ids.
            sampling_params: see :meth:`cleaner.cpu.sampling.SamplingParams.from_mapping`. Without ``max_tokens`` the
                answer has at most ``response_length`` tokens. Prompt and answer together never exceed ``prompt_length
                + response_length``, ``max_model_len`` and the model's own limit. With ``prompt_logprobs`` 0 and
                ``max_tokens`` 0 or 1 the prompt, up to that limit, is scored.
            request_id: only for messages.

        Raises:
            ValueError: an unknown or unsupported parameter, an image, video or sound, or a prompt too long to score.
        """
        extra = {"image_data": image_data, "video_data": video_data, "audio_data": audio_data, **kwargs}
        unsupported = sorted(name for name, value in extra.items() if value)
        if unsupported:
            raise ValueError(
                f"the rollout server hf_server takes token ids only, not {', '.join(unsupported)}"
            )
        params = SamplingParams.from_mapping(
            sampling_params, eos_token_ids=self._eos, ignore_eos=bool(self.config.ignore_eos)
        )
        prompt = [int(token) for token in normalize_token_ids(prompt_ids)]
        if params.prompt_logprobs:  # takes no seed from the server, so others' answers don't depend on it
            return await self._score(prompt, params, request_id)
        seed = self._seeds.getrandbits(63) if params.seed is None else params.seed
        room = self._max_length - len(prompt)
        wanted = self.config.response_length if params.max_tokens is None else params.max_tokens
        if not prompt:
            raise ValueError(f"request {request_id}: the prompt is empty")
        if room < 1 or wanted < 1:
            return self._no_room(request_id, len(prompt), room, wanted)
        if self._rejecting:
            return self._answer([], [], "aborted", 0, params)
        request = Request(prompt, params, seed, min(wanted, room))
        completion = await asyncio.wrap_future(self._loop.submit(request))
        return self._answer(
            completion.tokens, completion.log_probs, completion.finish, completion.cached_tokens, params
        )

    async def _score(self, prompt: list[int], params: SamplingParams, request_id: str) -> TokenOutput:
        if not 1 <= len(prompt) <= self._max_length:
            raise ValueError(
                f"request {request_id}: cannot score {len(prompt)} tokens; it must be 1 to {self._max_length}. "
                "Raise data.max_prompt_length or data.max_response_length"
            )
        if params.max_tokens not in (0, 1):
            raise ValueError(
                f"request {request_id}: prompt_logprobs=0 scores the prompt and generates nothing, so max_tokens must "
                f"be 0 or 1, not {params.max_tokens}"
            )
        if self._rejecting:
            return self._answer([], [], "aborted", 0, params)
        scores = await asyncio.wrap_future(self._loop.submit(ScoreRequest(prompt, params, 0, 0)))
        if isinstance(scores, Scores) and scores.error is not None:
            raise scores.error
        if scores.finish == "aborted":
            return self._answer([], [], "aborted", 0, params)
        answer = self._answer([], [], "scored", 0, params)
        answer.extra_fields["prompt_ids"] = [[token] for token in [*prompt[1:], 0]]
        answer.extra_fields["prompt_logprobs"] = [[value] for value in [*_round(scores.log_probs), 0.0]]
        return answer

    def _answer(
        self, tokens: list[int], log_probs: list[float], finish: str, cached: int, params: SamplingParams
    ) -> TokenOutput:
        return TokenOutput(
            token_ids=tokens,
            log_probs=_round(log_probs) if params.logprobs else None,
            stop_reason="aborted" if finish == "aborted" else "completed",
            num_preempted=0,
            extra_fields={
                "global_steps": self.global_steps,
                "num_cached_tokens": cached,
                "finish_reason": finish,
            },
        )

    def _no_room(self, request_id: str, length: int, room: int, wanted: int) -> TokenOutput:
        log = logger.debug if self._warned_no_room else logger.warning
        self._warned_no_room = True
        log(
            "request %s: a prompt of %d tokens leaves room for %d of %d tokens, and %d are wanted: the answer is "
            "empty. Raise data.max_prompt_length or data.max_response_length (further cases are logged at DEBUG level)",
            request_id, length, max(room, 0), self._max_length, wanted,
        )  # fmt: skip
        return self._answer([], [], "no_room", 0, SamplingParams())

    # -- weights ------------------------------------------------------------------------------------------------------

    async def begin_weight_update(self) -> None:
        """Close admission and wait until no request is running."""
        self._loop.hold(_UPDATE)
        await asyncio.wrap_future(self._loop.when_idle())
        self._receiver = await asyncio.wrap_future(
            self._loop.call(lambda decoder: WeightReceiver(decoder.model))
        )

    async def load_weights(self, named_tensors: list[tuple[str, torch.Tensor]]) -> None:
        """Copy some of the weights into the model, converting to its data type and device.

        Raises:
            RuntimeError: no update has begun.
            ValueError: a name or a shape that the model doesn't have.
        """
        receiver = self._receiver
        if receiver is None:
            raise RuntimeError("load_weights without begin_weight_update")
        await asyncio.wrap_future(self._loop.call(lambda _: receiver.load(named_tensors)))

    async def finish_weight_update(self, global_steps: int | None) -> None:
        """Check that every weight arrived, drop what the old ones computed, and admit requests again.

        Raises:
            RuntimeError: no update has begun.
            ValueError: weights are missing. The server then stays closed.
        """
        receiver = self._receiver
        if receiver is None:
            raise RuntimeError("finish_weight_update without begin_weight_update")
        receiver.check_complete()
        await asyncio.wrap_future(self._loop.call(Decoder.forget_prefixes))
        self._receiver = None
        self._has_weights = True
        if global_steps is not None:
            self.global_steps = global_steps
        self._loop.release(_UPDATE)

    async def set_global_steps(self, global_steps: int) -> None:
        """Set the weights' version."""
        self.global_steps = global_steps

    # -- control ------------------------------------------------------------------------------------------------------

    async def wait_for_requests_to_drain(self) -> None:
        """Wait for a moment when no request is running."""
        await asyncio.wrap_future(self._loop.when_idle())

    async def abort_all_requests(
        self, reset_prefix_cache: bool = True, reject_request: bool = False
    ) -> dict[str, Any]:
        """End all requests with what they have (``stop_reason`` "aborted") and close admission until
        :meth:`resume_generation`. Later requests wait, or with ``reject_request`` get an aborted answer at once."""
        self._loop.hold(_ABORT)
        self._rejecting = reject_request
        count = await asyncio.wrap_future(self._loop.abort())
        if reset_prefix_cache:
            await self.clear_kv_cache()
        return {"aborted_count": count, "request_ids": []}

    async def resume_generation(self) -> None:
        """Admit requests again after :meth:`abort_all_requests`."""
        self._rejecting = False
        self._loop.release(_ABORT)

    async def sleep(self) -> None:
        """With ``rollout.free_cache_engine``: let running requests finish, then give the caches' memory back and, on an
        accelerator, move the weights to host memory. Requests wait until :meth:`wake_up`. Otherwise nothing happens."""
        if not self.config.free_cache_engine:
            return
        self._loop.hold(_SLEEP)
        await self.wait_for_requests_to_drain()
        await asyncio.wrap_future(self._loop.call(self._fall_asleep))

    async def wake_up(self, tags: list[str] | None = None) -> None:
        """Undo :meth:`sleep`. ``tags`` may name a part: "weights" brings the weights back to the device, "kv_cache"
        admits requests; caches are allocated when needed."""
        if not self.config.free_cache_engine:
            return
        if tags is None or "weights" in tags:
            device = torch.device(self.options.device)
            await asyncio.wrap_future(self._loop.call(lambda decoder: decoder.model.to(device) and None))
        if tags is None or "kv_cache" in tags:
            self._loop.release(_SLEEP)

    @staticmethod
    def _fall_asleep(decoder: Decoder) -> None:
        decoder.free_memory()
        if decoder.device.type != "cpu":
            decoder.model.to("cpu")
            torch.get_device_module(decoder.device).empty_cache()

    async def clear_kv_cache(self) -> None:
        """Drop the prefix pool."""
        await asyncio.wrap_future(self._loop.call(Decoder.forget_prefixes))

    async def release_kv_cache(self) -> None:
        """Give the caches' memory back (with ``rollout.free_cache_engine``); they are allocated again when needed."""
        if not self.config.free_cache_engine:
            return
        self._loop.hold(_SLEEP)
        await self.wait_for_requests_to_drain()
        await asyncio.wrap_future(self._loop.call(Decoder.free_memory))

    async def resume_kv_cache(self) -> None:
        """Admit requests again after :meth:`release_kv_cache`."""
        self._loop.release(_SLEEP)

    async def start_profile(self, **kwargs: Any) -> None:
        """This server has no profiler; its running totals are in :meth:`stats`."""

    async def stop_profile(self) -> None:
        """See :meth:`start_profile`."""

    async def stats(self) -> dict[str, float]:
        """Running totals (``cleaner.cpu.requests.DecoderStats``) and ``running``, ``waiting``, ``prefix_tokens``."""

        def read(decoder: Decoder) -> dict[str, float]:
            return {**vars(decoder.stats), "prefix_tokens": decoder.pool.tokens}

        totals = await asyncio.wrap_future(self._loop.call(read))
        running, waiting = self._loop.load
        return {**totals, "running": running, "waiting": waiting}


def _round(log_probs: list[float]) -> list[float]:
    """To multiples of 2**-24 and then to float32; -0.0 and what rounds above 0 become 0."""
    values = torch.tensor(log_probs, dtype=torch.float64)
    return (torch.round(values * _GRID) / _GRID).clamp(max=0).float().tolist()
