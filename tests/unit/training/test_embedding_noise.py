from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaModel

from lib.training.embedding_noise import EmbeddingNoise

ALPHA, HIDDEN = 8.0, 64


@pytest.fixture
def backbone() -> LlamaModel:
    config = LlamaConfig(
        vocab_size=20, hidden_size=HIDDEN, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2
    )
    return LlamaModel(config).train()


def noise(backbone: LlamaModel, **batch: torch.Tensor) -> torch.Tensor:
    """What was added to the embeddings of each token; (rows, tokens, hidden)."""
    seen: list[torch.Tensor] = []
    embeddings = backbone.get_input_embeddings()
    hook = backbone.layers[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    backbone(**batch, use_cache=False)
    hook.remove()
    return seen[0].detach() - embeddings.weight[batch["input_ids"]].detach()


@pytest.fixture
def noisy(backbone: LlamaModel) -> LlamaModel:
    callback = EmbeddingNoise(ALPHA)
    model: Any = SimpleNamespace(get_base_model=lambda: SimpleNamespace(base_model=backbone))
    callback.on_train_begin(None, None, None, model=model)
    return backbone


def largest(tokens: int) -> float:
    return float(ALPHA / (tokens * HIDDEN) ** 0.5)


def test_every_row_of_a_sequence_gets_the_noise_of_its_own_length(noisy: LlamaModel) -> None:
    lengths = (3, 40, 9)
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    added = noise(noisy, input_ids=torch.ones_like(positions), position_ids=positions)[0]
    for length, part in zip(lengths, added.split(lengths), strict=True):
        assert 0.9 * largest(length) < part.abs().max() <= largest(length) + 1e-6
        assert abs(float(part.mean())) < 0.2 * largest(length)


def test_padding_does_not_count(noisy: LlamaModel) -> None:
    mask = torch.tensor([[1] * 30, [1] * 5 + [0] * 25])
    added = noise(noisy, input_ids=torch.ones_like(mask), attention_mask=mask)
    for length, part in zip((30, 5), added, strict=True):
        assert 0.9 * largest(length) < part[:length].abs().max() <= largest(length) + 1e-6


def test_a_batch_without_either_is_taken_whole(noisy: LlamaModel) -> None:
    added = noise(noisy, input_ids=torch.ones(2, 12, dtype=torch.long))
    assert 0.9 * largest(12) < added.abs().max() <= largest(12) + 1e-6


def test_none_while_evaluating_and_after_training(backbone: LlamaModel) -> None:
    callback = EmbeddingNoise(ALPHA)
    model: Any = SimpleNamespace(get_base_model=lambda: SimpleNamespace(base_model=backbone))
    ids = torch.ones(1, 6, dtype=torch.long)
    callback.on_train_begin(None, None, None, model=model)
    assert noise(backbone, input_ids=ids).abs().max() > 0
    assert noise(backbone.eval(), input_ids=ids).abs().max() == 0
    callback.on_train_end(None, None, None)
    assert noise(backbone.train(), input_ids=ids).abs().max() == 0
