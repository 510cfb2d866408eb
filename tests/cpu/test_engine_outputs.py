"""The CPU engine's log-probabilities are upstream's, with their gradients; it only computes them at once."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

from cleaner.cpu.engine import CPUEngineWithLMHead
from cleaner.cpu.padded_log_probs import log_probs

LENGTHS = [5, 2, 7]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("entropy", [False, True])
def test_log_probabilities_and_gradients_equal_upstreams(temperature: float, entropy: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    rows = [torch.randint(0, 11, (length,), generator=generator) for length in LENGTHS]
    logits = torch.randn(len(LENGTHS), max(LENGTHS), 11, generator=generator)
    weights = torch.randn(sum(LENGTHS), generator=generator)
    batch = TensorDict(
        {"input_ids": torch.nested.as_nested_tensor(rows, layout=torch.jagged)}, batch_size=len(LENGTHS)
    )
    tu.assign_non_tensor_data(batch, "use_remove_padding", False)
    tu.assign_non_tensor_data(batch, "calculate_entropy", entropy)
    arguments = {
        "input_ids_rmpad_rolled": torch.roll(torch.cat(rows), -1),
        "temperature": torch.full((len(LENGTHS),), temperature),
        "temperature_is_one": temperature == 1.0,
    }
    engine = CPUEngineWithLMHead.__new__(CPUEngineWithLMHead)
    engine.engine_config = SimpleNamespace(entropy_checkpointing=False)

    def outputs_and_gradient(kind: type[FSDPEngineWithLMHead]) -> tuple[dict[str, Any], torch.Tensor]:
        leaf = logits.clone().requires_grad_()
        outputs = kind.prepare_model_outputs(engine, SimpleNamespace(logits=leaf), arguments, batch, None)
        (outputs["log_probs"].values() * weights).sum().backward()
        assert leaf.grad is not None
        return outputs, leaf.grad

    expected, expected_gradient = outputs_and_gradient(FSDPEngineWithLMHead)
    actual, actual_gradient = outputs_and_gradient(CPUEngineWithLMHead)
    assert actual.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(actual[name].values(), expected[name].values(), rtol=1e-6, atol=1e-6)
        assert torch.equal(actual[name].offsets(), expected[name].offsets())
    torch.testing.assert_close(actual_gradient, expected_gradient, rtol=1e-5, atol=1e-6)
    # Our reading of the batch must not leave a mark on it.
    assert not tu.get_non_tensor_data(batch, "distillation_only", False)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_log_probabilities_of_half_precision_logits_are_not_rounded_again(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(5)
    logits = (6 * torch.randn(1, 50, 30, generator=generator)).to(dtype)
    labels = torch.randint(0, 30, (50,), generator=generator)
    arguments = {"input_ids_rmpad_rolled": labels, "temperature_is_one": True}
    with torch.autocast("cpu", dtype=dtype):
        found = log_probs(logits, arguments, torch.tensor([0, 50])).values()
    expected = torch.log_softmax(logits[0].double(), -1).gather(1, labels[:, None]).squeeze(1)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-5)
