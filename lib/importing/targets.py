"""Which layers get an adapter: the same names, which reach more here."""

from collections.abc import Sequence

from lib.importing.draft import StageDraft
from lib.settings.schema.model import ALL_LINEAR

EXPERT_NAMES = {"gate_proj", "up_proj", "down_proj", "w1", "w2", "w3"}
TARGET_NAMES = "SFT_LORA_TARGET_MODULES takes names of modules or all-linear"
EVERY_LINEAR = (
    "every linear layer, the experts of a mixture of experts included, but not head and "
    "routers. There the experts of "
    "transformers 5 are no linear layers and may be left out without a word; --plan counts what is trained"
)
_EXPERTS_TOO = (
    "on a mixture of experts gate, up and down reach the experts here, all of them at this "
    "rank. There they may reach "
    "none without a word"
)


def set_targets(draft: StageDraft, names: Sequence[str] | str, source: str, differs: str = "") -> None:
    """Names of modules or `all-linear`; that experts are reached is said where it matters."""
    if names != ALL_LINEAR and EXPERT_NAMES & set(names):
        differs = _EXPERTS_TOO
    draft.set("SFT_LORA_TARGET_MODULES", list(names) if names != ALL_LINEAR else ALL_LINEAR, source, differs)
