"""The chain of earlier stages under a stage, and whether each still is what its file says."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lib.data.reading.local_identity import local_fingerprints
from lib.lineage.file_hashes import file_sha256
from lib.lineage.fingerprint import (
    BaseFingerprint,
    adapter_fingerprint,
    base_fingerprint,
    differences,
    json_sha256,
    template_fingerprint,
    tokenizer_fingerprint,
)
from lib.lineage.record import StageRecord, intact_record
from lib.lineage.versions import decisive_versions
from lib.model.adapter import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from lib.model.base_files import base_folder
from lib.settings import MixEntry, StageSettings

# Settings that change what a person sees or keeps, not what is learned.
WITHOUT_EFFECT = frozenset(
    [
        "SFT_LOGGING_STEPS",
        "SFT_SAVE_TOTAL_LIMIT",
        "SFT_PER_DEVICE_EVAL_BS",
        "SFT_ZERO_STAGE",
        "SFT_STRICT",
        "SFT_OUT_LORA_DIR",
        "SFT_GEN_EVAL_BATCH_SIZE",
        "SFT_GEN_EVAL_BEFORE",
        "SFT_RETENTION_MIN",
        "SFT_MERGE_MIN_KEPT",
        "MLFLOW_EXPERIMENT_NAME",
        "MLFLOW_TRACKING_URI",
        "SFT_TENSORBOARD",
        "SFT_CACHE_DIR",
        "SFT_CACHE_GB",
        "SFT_DATASET_NUM_PROC",
        "SFT_DATASET_STREAMING",
        # A finished stage that was to stop at a bad step met none: skipping would have come to the same.
        "SFT_ON_NAN",
        "SFT_STALL_SECONDS",
        "SFT_ON_STALL",
        # A permission, not a change.
        "SFT_ALLOW_TEMPLATE_CHANGE",
        # Known by content: the fingerprints of base and chat template stand for them.
        "SFT_BASE_MODEL",
        "SFT_BASE_REVISION",
        "SFT_CHAT_TEMPLATE",
    ]
)
# These choose the checkpoint when SFT_BEST_METRIC comes from generated answers; else only what is reported.
OF_GENERATION = frozenset(
    [
        "SFT_GEN_EVAL_DATASET_ID",
        "SFT_GEN_EVAL_SAMPLES",
        "SFT_GEN_EVAL_SEED",
        "SFT_GEN_EVAL_MAX_NEW_TOKENS",
        "SFT_GEN_EVAL_TOKEN_BUDGET",
        "SFT_GEN_EVAL_TIME_BUDGET",
        "SFT_GEN_EVAL_EVERY",
        "SFT_GEN_EVAL_TASK",
        "SFT_GEN_EVAL_STYLE",
    ]
)
# For a stage on the untouched base: the default, as records have it that know of no other mode.
NOTHING_TO_MERGE = "merge"
# What is a spike counts only where spikes are left out: a stage that stopped at one is not finished.
OF_SPIKES = frozenset({"SFT_ON_SPIKE", "SFT_SPIKE_DEVIATIONS"})
# Rows that answers are scored on are never replayed, and left out by an audit that removes them.
NEVER_TRAINED_ON = frozenset({"SFT_GEN_EVAL_DATASET_ID"})
# An audit that removes nothing changes nothing.
OF_THE_AUDIT = frozenset({"SFT_AUDIT", "SFT_AUDIT_CHECKS", "SFT_NEAR_DUPLICATE_THRESHOLD"})
LEAKS = frozenset({"evaluation", "near_evaluation"})
BASE, TOKENIZER, TEMPLATE = "base model", "tokenizer", "chat template"
# The same base seen less and less closely: the first view that record and present both have is compared.
BASE_VIEWS = (BASE, "base model by sizes and ends", "base model by name")
# Origins of settings that belong to one run and not to the curriculum.
PASSING = frozenset({"environment", "--set"})
DATA_KEYS = frozenset({"SFT_DATASET_MIX", "SFT_DATASET_IDS", "SFT_DATASET_ID"})


@dataclass(frozen=True)
class Parent:
    """An earlier stage whose adapter is in the base of the present one."""

    stage: int
    folder: Path
    adapter_sha256: str
    fingerprint: str
    """Of weights and configuration together."""
    record: StageRecord | None


@dataclass(frozen=True)
class Chain:
    """Everything under a stage: the stage-0 base and the adapters of earlier stages, oldest first."""

    base: BaseFingerprint
    parents: tuple[Parent, ...]
    missing: tuple[int, ...]

    @property
    def adapters(self) -> list[Path]:
        """Folders of the adapters, oldest first."""
        return [parent.folder for parent in self.parents]

    @property
    def key(self) -> str:
        """Content key of the base with the adapters in it: the same key means the same sum, merged or
        stacked. Empty where the base's content is not known, as for a plan."""
        return _key(self.base.content, [parent.fingerprint for parent in self.parents])


def merged_base_key(base_content: str, adapters: Sequence[Path]) -> str:
    """`Chain.key` of a base and the adapter folders merged into it, oldest first; empty where one is gone."""
    try:
        return _key(base_content, [adapter_fingerprint(folder) for folder in adapters])
    except OSError:
        return ""


def _key(base_content: str, adapters: Sequence[str]) -> str:
    return json_sha256([base_content, list(adapters)]) if base_content else ""


def trace(settings: StageSettings, earlier: Sequence[int], *, thorough: bool) -> Chain:
    """The chain under `settings`; `earlier` are the numbers of the curriculum's earlier stages. `thorough`
    reads the base whole where that was never done; a plan makes do without."""
    parents, missing = [], []
    for stage in earlier:
        folder = Path(f"{settings.output}_stage{stage}")
        weights = folder / ADAPTER_WEIGHTS
        if weights.is_file() and (folder / ADAPTER_CONFIG).is_file():
            parents.append(
                Parent(
                    stage, folder, file_sha256(weights), adapter_fingerprint(folder), intact_record(folder)
                )
            )
        else:
            missing.append(stage)
    base = base_fingerprint(settings.model, thorough=thorough)
    return Chain(base, tuple(parents), tuple(missing))


def identity(settings: StageSettings, chain: Chain, data_fingerprints: Mapping[str, str]) -> dict[str, str]:
    """What decides the result of a stage, as flat text: settings, base, tokenizer and chat template,
    parents, data, and the libraries that give the saved files their meaning. Of a base that is not here
    only the name.

    SFT_MERGE_MODE counts: merging rounds what the stage is trained on. Not so without earlier stages, where
    there is nothing to merge or to stack.
    """
    judged_by_loss = settings.training.best_metric == "eval_loss"
    ignored = WITHOUT_EFFECT | (OF_GENERATION if judged_by_loss else frozenset())
    if settings.data.replay or removes_leaks(settings):
        ignored -= NEVER_TRAINED_ON
    if settings.audit.mode != "remove":
        ignored |= OF_THE_AUDIT
    if settings.training.on_spike != "skip":
        ignored |= OF_SPIKES
    values = {key: value for key, value in settings.values.items() if key not in ignored}
    if not chain.parents:
        values["SFT_MERGE_MODE"] = NOTHING_TO_MERGE
    return {
        **values,
        **_base_identity(settings, chain.base),
        **decisive_versions(),
        **{f"stage {parent.stage}": parent.fingerprint[:16] for parent in chain.parents},
        **{f"data set {name}": digest[:16] for name, digest in data_fingerprints.items()},
    }


def removes_leaks(settings: StageSettings) -> bool:
    """Whether rows that stages are evaluated on are taken out of the mix."""
    return settings.audit.mode == "remove" and bool(LEAKS & {*settings.audit.checks})


def evaluated_data(settings: StageSettings, chain: Chain) -> dict[str, str]:
    """Content hashes of the local data sets that this stage and those under it name for their evaluation,
    where these rows are taken out of the mix. Stages that come later do not make this one stale."""
    if not removes_leaks(settings):
        return {}
    named = {settings.stage: settings.evaluation.dataset_id}
    named |= {
        parent.stage: parent.record.settings.get("SFT_GEN_EVAL_DATASET_ID", "")
        for parent in chain.parents
        if parent.record
    }
    return {
        f"{name} of the evaluation of stage {stage}": digest
        for stage, named_set in named.items()
        for name, digest in local_fingerprints([MixEntry(named_set, None)] if named_set else []).items()
    }


def replayed_data(settings: StageSettings, chain: Chain) -> dict[str, str]:
    """Content hashes of the local data sets of earlier stages, where some of their rows are drawn again."""
    if not settings.data.replay:
        return {}
    return {
        f"{name} of stage {parent.stage}": digest
        for parent in chain.parents
        if parent.record
        for name, digest in local_fingerprints(
            MixEntry(source["id"], None, source["split"]) for source in parent.record.data["sources"]
        ).items()
    }


def _base_identity(settings: StageSettings, base: BaseFingerprint) -> dict[str, str]:
    views = (base.content[:16], base.outline[:16], base.name)
    found = {view: text for view, text in zip(BASE_VIEWS, views, strict=True) if text}
    folder = base_folder(settings.model)
    if folder is None:
        return found
    template = template_fingerprint(folder, settings.data.chat_template)
    return {**found, TOKENIZER: tokenizer_fingerprint(folder)[:16], TEMPLATE: template[:16]}


def stale_reasons(
    record: StageRecord, current: Mapping[str, str], origins: Mapping[str, str], *, as_run_now: bool
) -> list[str]:
    """Why a complete stage no longer is what its file and inputs say; empty when it is up to date.

    `as_run_now` is true for a stage that is about to be run: every setting counts. For an ancestor,
    settings that come from the environment or `--set`, then or now, are left out: they belong to one
    run, and nobody repeats those of stage 1 when stage 2 is run.
    """
    found = _without_later_keys(_differences(record.identity, current), record.settings, origins)
    if not as_run_now:
        passing = {
            key for given in (record.origins, origins) for key, origin in given.items() if origin in PASSING
        }
        if "SFT_CHAT_TEMPLATE" in passing:
            passing.add(TEMPLATE)
        data_passes = bool(passing & DATA_KEYS)
        found = [
            (key, old, new)
            for key, old, new in found
            if key not in passing and not (data_passes and key.startswith("data set "))
        ]
    return [_reason(key, old, new) for key, old, new in found]


def run_changes(
    begun: Mapping[str, str], current: Mapping[str, str], origins: Mapping[str, str]
) -> dict[str, str]:
    """By what an interrupted run differs from the present one: key to what became of it."""
    found = _without_later_keys(_differences(begun, current), begun, origins)
    return {key: _reason(key, old, new) for key, old, new in found}


Found = list[tuple[str, str, str]]


def _without_later_keys(found: Found, known: Collection[str], origins: Mapping[str, str]) -> Found:
    """A key that came later has a default that does as before."""
    return [entry for entry in found if entry[0] in known or origins.get(entry[0]) != "default"]


def _differences(recorded: Mapping[str, str], current: Mapping[str, str]) -> Found:
    """What differs, the base seen as closely as both sides allow; what lies in its folder is compared only
    where both had the folder."""
    views = [view for view in BASE_VIEWS if view in recorded and view in current]
    unseen = {key for key in (TOKENIZER, TEMPLATE) if key not in recorded or key not in current}
    left_out = {*BASE_VIEWS, *unseen} - {*views[:1]}
    return [found for found in differences(recorded, current) if found[0] not in left_out]


def _reason(key: str, old: object, new: object) -> str:
    if key in BASE_VIEWS or key in {TOKENIZER, TEMPLATE}:
        return f"the {'base model' if key in BASE_VIEWS else key} changed"
    if key.startswith("stage "):
        return f"{key} was {'added' if old is None else 'removed' if new is None else 'retrained'}"
    if key.startswith("data set "):
        return f"{key} {'was added' if old is None else 'is no longer used' if new is None else 'changed'}"
    shown_old, shown_new = (str(value)[:60] if value not in (None, "") else "unset" for value in (old, new))
    return f"{key} changed from {shown_old} to {shown_new}"
