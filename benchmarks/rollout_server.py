"""Tokens per second of the rollout server's decoder against transformers' `generate`, in one run, interleaved.

    python benchmarks/rollout_server.py                 # a model of the quick start's size, on CPU
    python benchmarks/rollout_server.py --model DIR --device cuda --dtype bfloat16

Each batch size is one row: distinct prompts of equal length, answers of equal length, sampling at temperature 1. Times
include the prompts. "forward" is the share of a decoding step that the model's own forward pass takes, the floor that
no server on top of transformers can get below. The last lines show turns of a trajectory with and without the reuse of
prefixes. Best of `--repeat` rounds, because other processes can only make a round slower.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from cleaner.cpu import fast_modules
from cleaner.cpu.decoder import Decoder
from cleaner.cpu.options import DTYPES
from cleaner.cpu.requests import DecoderStats, Request
from cleaner.cpu.sampling import SamplingParams


def load(arguments: argparse.Namespace) -> PreTrainedModel:
    torch.manual_seed(0)
    if arguments.model:
        model = AutoModelForCausalLM.from_pretrained(arguments.model, attn_implementation="sdpa")
    else:
        model = Qwen2ForCausalLM(
            Qwen2Config(
                vocab_size=640, hidden_size=128, intermediate_size=384, num_hidden_layers=3, num_attention_heads=4,
                num_key_value_heads=2, max_position_embeddings=2048, tie_word_embeddings=True,
            )
        )  # fmt: skip
    return model.to(device=arguments.device, dtype=DTYPES[arguments.dtype]).eval()


def requests(model: PreTrainedModel, count: int, length: int, answer: int) -> list[Request]:
    generator = torch.Generator().manual_seed(count)
    ids = torch.randint(0, model.config.vocab_size, (count, length), generator=generator)
    return [Request(row.tolist(), SamplingParams(), seed, answer) for seed, row in enumerate(ids)]


def decode(decoder: Decoder, batch: list[Request]) -> None:
    decoder.admit(batch)
    while decoder.running:
        decoder.step()


def generate(model: PreTrainedModel, batch: list[Request]) -> None:
    ids = torch.tensor([request.prompt for request in batch], device=model.device)
    model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=True, top_k=0, temperature=1.0, pad_token_id=0,
        eos_token_id=None, max_new_tokens=batch[0].max_tokens, min_new_tokens=batch[0].max_tokens,
    )  # fmt: skip


def seconds(action: Callable[[], None], device: str) -> float:
    started = time.perf_counter()
    action()
    if device != "cpu":
        torch.get_device_module(device).synchronize()
    return time.perf_counter() - started


def turns(decoder: Decoder, model: PreTrainedModel, arguments: argparse.Namespace) -> float:
    """16 trajectories of 4 turns, each turn's prompt the history and 20 new tokens."""
    started = time.perf_counter()
    histories = [request.prompt for request in requests(model, 16, arguments.prompt, 1)]
    for turn in range(4):
        batch = [Request(prompt, SamplingParams(), turn, arguments.answer) for prompt in histories]
        decoder.admit(batch)
        answers: dict[Request, list[int]] = {}
        while decoder.running:
            answers.update((request, completion.tokens) for request, completion in decoder.step())
        histories = [request.prompt + answers[request] + list(range(20)) for request in batch]
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", help="a model's folder; default: a random Qwen2 of 0.67 million parameters"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float64", choices=DTYPES)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16, 128])
    parser.add_argument("--prompt", type=int, default=200, help="tokens of a prompt")
    parser.add_argument("--answer", type=int, default=60, help="tokens of an answer")
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    plain, fast = load(arguments), load(arguments)
    length = arguments.prompt + 5 * (arguments.answer + 20)
    replaced = fast_modules.install(fast, length + 1)
    print(
        f"{plain.num_parameters():,} parameters, {arguments.dtype} on {arguments.device}, replaced: {replaced}"
    )
    print(
        f"{'batch':>6} {'server tok/s':>13} {'decode tok/s':>13} {'generate tok/s':>15} {'ratio':>6} {'forward':>8}"
    )
    rows = []
    for count in arguments.batches:
        decoder = Decoder(fast, max_length=length, prefix_bytes=0)
        batch = requests(plain, count, arguments.prompt, arguments.answer)
        tokens = count * arguments.answer
        ours, theirs, steps = [], [], []
        for _ in range(arguments.repeat):
            decoder.stats.__init__()  # type: ignore[misc]
            ours.append(seconds(lambda: decode(decoder, batch), arguments.device))  # noqa: B023
            steps.append(DecoderStats(**vars(decoder.stats)))
            theirs.append(seconds(lambda: generate(plain, batch), arguments.device))  # noqa: B023
        best = min(steps, key=lambda s: s.decode_seconds)
        row = {
            "batch": count,
            "server_tokens_per_s": tokens / min(ours),
            "decode_tokens_per_s": tokens / best.decode_seconds,
            "generate_tokens_per_s": tokens / min(theirs),
            "ratio": min(theirs) / min(ours),
            "forward_share": best.forward_seconds / best.decode_seconds,
        }
        rows.append(row)
        print("{:>6} {:>13.0f} {:>13.0f} {:>15.0f} {:>6.2f} {:>8.2f}".format(*row.values()), flush=True)
    reuse = {}
    for name, size in (("with", 512 << 20), ("without", 0)):
        decoder = Decoder(fast, max_length=length, prefix_bytes=size)
        reuse[name] = turns(decoder, plain, arguments)
        stats = decoder.stats
        print(
            f"4 turns x 16, {name} reuse of prefixes: {reuse[name]:.2f} s; of {stats.prompt_tokens} prompt tokens "
            f"{stats.prefilled_tokens} computed, {stats.cached_tokens} reused"
        )
    print(
        json.dumps(
            {"dtype": arguments.dtype, "device": arguments.device, "rows": rows, "turns_seconds": reuse}
        )
    )


if __name__ == "__main__":
    main()
