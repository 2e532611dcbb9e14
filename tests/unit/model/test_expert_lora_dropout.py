"""Dropout on the LoRA branch of experts: like that of linear layers, and never silently absent."""

import pytest
import torch

from lib.model.expert_lora.dropout import Dropout
from lib.model.expert_lora.products import choose_products
from lib.model.expert_lora.routing import sort_by_expert
from tests.unit.model.expert_blocks import ROUTINGS, as_peft, draw, errors, make_block, run

CHOSEN = torch.arange(40).remainder(8).view(40, 1)


@pytest.mark.parametrize("p", [0.05, 0.5])
def test_masks_keep_the_share_they_say(p: float) -> None:
    dropout = Dropout(p, seed=3, device=torch.device("cpu"))
    mask = dropout.mask(1000, 333)
    assert mask is not None
    kept = mask(torch.ones(1000, 333))
    assert set(kept.unique().tolist()) == {0.0, 1.0}
    assert dropout.keep_rate == pytest.approx(1 - p, abs=1e-5)
    assert kept.mean().item() == pytest.approx(1 - p, abs=4 * (p * (1 - p) / 333_000) ** 0.5)
    assert kept.mean(0).std().item() == pytest.approx((p * (1 - p) / 1000) ** 0.5, rel=0.2)


def test_masks_follow_the_seed() -> None:
    def masks(seed: int) -> list[torch.Tensor]:
        dropout = Dropout(0.5, seed, torch.device("cpu"))
        drawn = [dropout.mask(7, 9), dropout.mask(7, 9)]
        return [mask(torch.ones(7, 9)) for mask in drawn if mask]

    first, second = masks(1)
    assert all(map(torch.equal, masks(1), (first, second)))
    assert not torch.equal(first, second)
    assert not torch.equal(masks(2)[0], first)


def test_no_dropout_draws_nothing() -> None:
    dropout = Dropout(0.0, 1, torch.device("cpu"))
    assert dropout.mask(3, 4) is None
    assert dropout.keep_rate == 1.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_it_is_off_in_evaluation(dtype: torch.dtype) -> None:
    block, drawn = make_block(dropout=0.5, dtype=dtype).eval(), draw(CHOSEN, dtype)
    without = run(make_block(dtype=dtype).train(), CHOSEN, drawn)
    found = run(block, CHOSEN, drawn)
    assert all(torch.equal(found[name], without[name]) for name in without)


def test_the_seed_decides_and_only_the_seed() -> None:
    block, drawn = make_block(dropout=0.5).train(), draw(ROUTINGS["random"](), torch.float32)
    chosen = ROUTINGS["random"]()
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(run(block, chosen, drawn))
    first, same, other = results
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert all(not torch.equal(first[name], other[name]) for name in first)


def test_the_mean_over_masks_is_the_value_without() -> None:
    """Of the gradient of gate_up's B, which is linear in its mask once down's branch is off."""
    block, drawn = make_block(dropout=0.5).train(), draw(CHOSEN, torch.float32)
    block.lora_B["default"].weight.data.zero_()
    gate_up = block.base_layer
    gate_up.lora_B["default"].weight.data.zero_()
    name = "base_layer.lora_B.default.weight"
    wanted = run(block.eval(), CHOSEN, drawn)[name]
    block.train()
    found = torch.stack([run(block, CHOSEN, drawn)[name] for _ in range(400)])
    standard_error = found.std(0) / 20
    assert ((found.mean(0) - wanted).abs() <= 5 * standard_error + 1e-6).all()
    assert standard_error.max() > 0


@pytest.mark.parametrize("routing", ["random", "half the experts empty", "k=1"])
def test_gradients_are_those_of_the_masked_branch(routing: str) -> None:
    """Against autograd on the formula, expert by expert, in float64, with the masks drawn again."""
    torch.manual_seed(6)
    block = make_block(dropout=0.4).train()
    chosen = ROUTINGS[routing]()
    drawn = draw(chosen, torch.float32)
    torch.manual_seed(8)
    found = run(block, chosen, drawn)
    torch.manual_seed(8)
    seed = int(torch.randint(2**63 - 1, ()))
    wanted = run(as_peft(block), chosen, drawn, torch.float64, wrap=lambda *call: by_the_formula(*call, seed))
    assert max(errors(found, wanted).values()) < 1e-6, errors(found, wanted)


def by_the_formula(
    block: object, hidden: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor, seed: int
) -> torch.Tensor:
    """Σ over choices of weight · down(silu(gate) · up), either projection xW + s·(drop(x)Aᵀ)B."""
    experts = block.get_base_layer()  # type: ignore[attr-defined]
    order = torch.sort(chosen.reshape(-1), stable=True).indices
    tokens, of = order // chosen.shape[1], chosen.reshape(-1)[order]
    kept_x, kept_h, keep_rate = drawn_by_halves(chosen, experts, seed)

    def project(wrapper: object, weight: torch.Tensor, x: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        a = wrapper.lora_A["default"].weight.view(8, 4, -1)[of]  # type: ignore[attr-defined]
        b = wrapper.lora_B["default"].weight.view(-1, 4, 8).permute(2, 0, 1)[of]  # type: ignore[attr-defined]
        dropped = x * kept / keep_rate
        branch = 2.0 * (b @ (a @ dropped.unsqueeze(2)))
        return (weight[of] @ x.unsqueeze(2) + branch).squeeze(2)  # type: ignore[no-any-return]

    gate, up = project(block.base_layer, experts.gate_up_proj, hidden[tokens], kept_x).chunk(2, 1)  # type: ignore[attr-defined]
    y = project(block, experts.down_proj, torch.nn.functional.silu(gate) * up, kept_h)
    return torch.zeros_like(hidden).index_add(0, tokens, y * weights.reshape(-1)[order].unsqueeze(1))


def drawn_by_halves(
    chosen: torch.Tensor, experts: object, seed: int
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """1 where the inputs of gate_up and of down are kept, and the share that is; each half of the experts
    draws with a seed of its own, first for gate_up."""
    stacks = experts.gate_up_proj, experts.down_proj  # type: ignore[attr-defined]
    products = choose_products(sort_by_expert(chosen, 8, padded=False), *stacks)
    sizes = [len(rows) for rows in products.rows(torch.arange(chosen.numel()))]
    assert len(sizes) == 2
    kept: tuple[list[torch.Tensor], ...] = ([], [])
    for half, size in enumerate(sizes):
        dropout = Dropout(0.4, seed ^ half, torch.device("cpu"))
        for masks, width in zip(kept, (32, 24), strict=True):
            mask = dropout.mask(size, width)
            assert mask is not None
            masks.append(mask(torch.ones(size, width)))
    return torch.cat(kept[0]), torch.cat(kept[1]), dropout.keep_rate


def test_training_under_another_implementation_is_refused() -> None:
    """PEFT's own forward has no dropout on parameters: it would go missing without a word."""
    block = make_block(dropout=0.1).train()
    block.get_base_layer().config._experts_implementation = "grouped_mm"
    drawn = draw(CHOSEN, torch.float32)
    with pytest.raises(RuntimeError, match="needs the experts implementation 'split_lora'"):
        run(block, CHOSEN, drawn)
    run(block.eval(), CHOSEN, drawn)
