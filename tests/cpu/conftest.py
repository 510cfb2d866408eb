"""A tiny Qwen2 model and ways to run requests through the decoder."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from cleaner.cpu import fast_modules
from cleaner.cpu.decoder import Decoder
from cleaner.cpu.requests import Completion, Request
from cleaner.cpu.sampling import SamplingParams

VOCABULARY = 96
MAX_LENGTH = 160


@pytest.fixture(autouse=True)
def one_thread() -> Iterable[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiny_config(**changes: object) -> Qwen2Config:
    values = dict(
        vocab_size=VOCABULARY, hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=6,
        num_key_value_heads=2, max_position_embeddings=256, tie_word_embeddings=True,
        bos_token_id=None, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    return Qwen2Config(**{**values, **changes})


def sharpen(model: PreTrainedModel) -> PreTrainedModel:
    """Enlarge random weights, so that the distributions are neither flat nor degenerate."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(6)
    return model.eval()


@pytest.fixture
def make_model() -> Callable[..., PreTrainedModel]:
    def make(dtype: torch.dtype = torch.float64, fast: bool = True, seed: int = 0) -> PreTrainedModel:
        torch.manual_seed(seed)
        model = sharpen(Qwen2ForCausalLM(tiny_config())).to(dtype)
        if fast:
            fast_modules.install(model, MAX_LENGTH + 1)
        return model

    return make


@pytest.fixture
def decoder(make_model: Callable[..., PreTrainedModel]) -> Decoder:
    return Decoder(make_model(), max_length=MAX_LENGTH, max_rows=32)


def request(prompt: list[int], *, seed: int = 0, max_tokens: int = 24, **params: object) -> Request:
    return Request(list(prompt), SamplingParams(**params), seed, max_tokens)


def prompts(count: int, seed: int = 0, shortest: int = 3, longest: int = 40) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(shortest, longest + 1, (count,), generator=generator).tolist()
    return [torch.randint(2, VOCABULARY, (length,), generator=generator).tolist() for length in lengths]


def run_all(decoder: Decoder, requests: list[Request]) -> list[Completion]:
    """All requests join at once."""
    decoder.admit(requests)
    done = drain(decoder)
    return [done[r] for r in requests]


def drain(decoder: Decoder) -> dict[Request, Completion]:
    done: dict[Request, Completion] = {}
    while decoder.running:
        done.update(decoder.step())
    return done


@pytest.fixture(scope="session")
def model_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model on disk with a tokenizer of one token per word; token 1 ends an answer."""
    directory = tmp_path_factory.mktemp("tiny_model")
    words = {"<pad>": 0, "<eos>": 1, **{f"w{i}": i for i in range(2, VOCABULARY)}}
    inner = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>")
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    tokenizer.save_pretrained(directory)
    torch.manual_seed(0)
    sharpen(Qwen2ForCausalLM(tiny_config())).save_pretrained(directory)
    return directory
