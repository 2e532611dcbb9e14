"""Does the merged base still say what base and adapters say together?

Their logits on a few rows, held side by side: what rounding the weights costs where it counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib.files import read_json, write_json
from lib.model.base import StageBase, load_model
from lib.model.merge import MERGE_RECORD
from lib.settings import ModelSettings

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

# Bytes of weight files up to which the untouched base is loaded once more, in fp32, to be asked.
PROBE_LIMIT = 4 * 10**9
PROBE_ROWS = 4
PROBE_TOKENS = 256
# Below, the merged model is another model than the one that was trained.
LEAST_AGREEMENT = 0.9


def probe_merge(
    base: StageBase,
    settings: ModelSettings,
    adapters: Sequence[Path],
    model: PreTrainedModel,
    rows: Sequence[Sequence[int]],
) -> StageBase:
    """`base` with the gap between `model`, which was loaded from it, and base + adapters in its proof.

    Measured once and kept in merge.json. Above PROBE_LIMIT, and for a base that is not merged, nothing is
    measured. What nf4 makes of the weights is not the merge's doing: of a quantised `model` the files are
    loaded once more as they are, on the CPU, where there is room for them.
    """
    if not base.merged or base.proof is None or not rows:
        return base
    if "logits" not in base.proof:
        if weight_bytes(Path(base.path)) > PROBE_LIMIT:
            return base
        shown = [list(row[:PROBE_TOKENS]) for row in rows]
        merged = model if base.quantization == "none" else _as_merged(base)
        gap = logits_gap(merged, base_with_adapters(settings, adapters, merged.device), shown)
        base = replace(base, proof={**base.proof, "logits": gap})
        record = read_json(Path(base.path) / MERGE_RECORD)
        write_json(Path(base.path) / MERGE_RECORD, {**record, "proof": base.proof})
    assert base.proof is not None
    return replace(base, notices=(*base.notices, *gap_notices(base.proof["logits"])))


def _as_merged(base: StageBase) -> PreTrainedModel:
    import torch

    return load_model(base.path, "", dtype=torch.float32, attention=None, device=torch.device("cpu"))


def weight_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def base_with_adapters(
    settings: ModelSettings, adapters: Sequence[Path], device: torch.device
) -> PreTrainedModel:
    """The untouched base with every update added in fp32, without any rounding to its files' number type."""
    import torch
    from peft import PeftModel

    name, revision = settings.base_model, settings.base_revision
    model = load_model(name, revision, dtype=torch.float32, attention=None, device=device)
    for adapter in adapters:
        model = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    return model


def logits_gap(
    model: PreTrainedModel, reference: PreTrainedModel, rows: Sequence[Sequence[int]]
) -> dict[str, Any]:
    """Over all tokens of `rows`: mean and largest absolute difference of the logits, their spread (standard
    deviation, to compare with), and the share of tokens after which both rank the same token first."""
    import torch

    differences, spreads, agreements = [], [], []
    modes = model.training, reference.training
    model.eval(), reference.eval()
    with torch.no_grad():
        for row in rows:
            ids = torch.tensor([row], device=model.device)
            ours = model(input_ids=ids, use_cache=False).logits[0].float()
            theirs = reference(input_ids=ids, use_cache=False).logits[0].float()
            differences.append((ours - theirs).abs())
            spreads.append(theirs.std())
            agreements.append((ours.argmax(-1) == theirs.argmax(-1)).float())
    model.train(modes[0]), reference.train(modes[1])
    gaps = torch.cat(differences)
    return {
        "rows": len(rows),
        "tokens": int(gaps.shape[0]),
        "mean": float(gaps.mean()),
        "largest": float(gaps.max()),
        "spread": float(torch.stack(spreads).mean()),
        "same_first": float(torch.cat(agreements).mean()),
    }


def gap_notices(gap: dict[str, Any]) -> tuple[str, ...]:
    if gap["same_first"] >= LEAST_AGREEMENT:
        return ()
    return (
        f"[WARNING] after only {gap['same_first']:.0%} of {gap['tokens']} probe tokens the merged base ranks "
        "the same token first as base and adapters do: rounding changed what the earlier stages say. "
        "SFT_MERGE_MODE=stack keeps them exactly",
    )
