"""What a merge did to the weights: how much of the intended update is in the rounded result. Pure.

For D, the update that the adapters ask for, and R, the weights on disk after the merge minus those before:
kept = <R, D> / <D, D>, the share of the update that is there (1: all; rounding can lose small updates);
noise = |R - D| / |D|, what rounding added to it, relative to its size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True)
class Tally:
    """Sums over weights. `intended` is <D, D>, `error` <R-D, R-D>, `cross` <R-D, D>; `changed` tells whether
    any weight is another number than before."""

    intended: float = 0.0
    error: float = 0.0
    cross: float = 0.0
    changed: bool = False

    def __add__(self, other: Self) -> Tally:
        return Tally(
            self.intended + other.intended,
            self.error + other.error,
            self.cross + other.cross,
            self.changed or other.changed,
        )

    @property
    def finite(self) -> bool:
        return math.isfinite(self.intended + self.error + self.cross)

    @property
    def kept(self) -> float:
        return 1 + self.cross / self.intended if self.intended else 1.0

    @property
    def noise(self) -> float:
        return math.sqrt(self.error / self.intended) if self.intended else 0.0

    def to_json(self) -> dict[str, Any]:
        return {"kept": round(self.kept, 6), "noise": round(self.noise, 6), "changed": self.changed}


def summarise(
    tensors: Mapping[str, Tally], *, experts: frozenset[str], adapter_tensors: int
) -> dict[str, Any]:
    """The proof in a few numbers. `tensors` are those on disk that an adapter acts on, `experts` the names of
    those of them that belong to experts; `adapter_tensors` were used, each exactly once."""
    total = sum((tensors[name] for name in sorted(tensors)), Tally())
    return {
        "kept": round(total.kept, 6),
        "noise": round(total.noise, 6),
        "tensors": len(tensors),
        "tensors_changed": sum(tally.changed for tally in tensors.values()),
        "expert_tensors": len(experts),
        "expert_tensors_changed": sum(tensors[name].changed for name in experts),
        "adapter_tensors_used": adapter_tensors,
        "least_kept": _least_kept(tensors),
    }


def _least_kept(tensors: Mapping[str, Tally]) -> dict[str, Any] | None:
    """The tensor that lost most."""
    trained = [name for name in sorted(tensors) if tensors[name].intended]
    if not trained:
        return None
    name = min(trained, key=lambda name: tensors[name].kept)
    return {"tensor": name, **tensors[name].to_json()}


def proof_line(proof: Mapping[str, Any]) -> str:
    """`48 tensors, 100 % of the update kept, noise 3 %`."""
    experts = (
        f" ({proof['expert_tensors_changed']} of {proof['expert_tensors']} expert tensors)"
        if proof["expert_tensors"]
        else ""
    )
    return (
        f"{proof['tensors_changed']} tensors changed{experts}, {100 * proof['kept']:.3g} % of the update "
        f"kept, noise {100 * proof['noise']:.2g} %{_gap(proof.get('logits'))}"
    )


def proof_table(proof: Mapping[str, Any]) -> dict[str, str]:
    """The proof in words, one statement a row."""
    table = {
        "Adapter tensors merged": f"{proof['adapter_tensors_used']:,}, each of them exactly once",
        "Tensors of the base changed": f"{proof['tensors_changed']:,} of {proof['tensors']:,}"
        f" (expert tensors: {proof['expert_tensors_changed']:,} of {proof['expert_tensors']:,})",
        "Share of the update that survived rounding": f"{100 * proof['kept']:.4g} %",
        "Noise that rounding added": f"{100 * proof['noise']:.2g} % of the update",
    }
    least, logits = proof["least_kept"], proof.get("logits")
    if least:
        table["Tensor that lost most"] = f"{least['tensor']}: {100 * least['kept']:.3g} % survived"
    if logits:
        table["Logits against base and adapters"] = (
            f"over {logits['tokens']:,} probe tokens the mean gap is {logits['mean']:.2g}, the largest "
            f"{logits['largest']:.2g} (their spread is {logits['spread']:.2g}); the same token comes first "
            f"after {100 * logits['same_first']:.4g} %"
        )
    return {**table, "Tensor by tensor": "merge_proof.json in the folder of the merged base"}


def _gap(logits: Mapping[str, Any] | None) -> str:
    """The same token ranked first as by base and adapters, on probe rows."""
    return f", same first token {100 * logits['same_first']:.3g} %" if logits else ""


def proof_notices(proof: Mapping[str, Any], least: float) -> tuple[str, ...]:
    """A warning when less than the share `least` of the update survived."""
    if proof["kept"] >= least:
        return ()
    return (
        f"[WARNING] rounding to the base's number type kept {100 * proof['kept']:.3g} % of what the earlier "
        f"stages learned (SFT_MERGE_MIN_KEPT={least:g}). SFT_MERGE_MODE=stack keeps their adapters beside "
        "the weights, exactly; a base in fp32 or a higher learning rate helps too",
    )
