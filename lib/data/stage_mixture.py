"""The mixture of a stage from its settings, with what it replays of earlier stages."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from lib.data.chat.chat_format import ChatFormat
from lib.data.encoding import Encoded, encode_rows
from lib.data.keeping import keeper
from lib.data.mixing.amounts import Algebra
from lib.data.mixing.cleaning import Clean, Finding, audit_lines, keep_all, without_rows
from lib.data.mixing.mixture import Mixture, plan_mixture
from lib.data.mixing.negatives import NegativeRule
from lib.data.mixing.realised import size_in
from lib.data.mixing.replay import NO_REPLAY, ReplayPool, ReplaySource
from lib.data.reading.local_identity import local_fingerprints
from lib.data.reading.sources import AbsentSource, Source, load_source, load_sources
from lib.data.reading.usable_rows import SourceRows, read_examples
from lib.settings.errors import InputError, Problem
from lib.settings.schema import StageSettings

CHANGED = "the data set changed since that stage was trained"


@dataclass(frozen=True)
class SourceRecord:
    """A data set as the stage record and MLflow name it."""

    id: str
    name: str
    split: str
    weight: float | None
    rows: int
    fingerprint: str


@dataclass(frozen=True)
class ReplayedStage:
    """A stage whose data may be replayed, as it was trained or, before that, as its file says."""

    settings: StageSettings
    fingerprints: Mapping[str, str] | None = None
    """Of its data sets by name when it was trained; None: it is not trained yet."""
    draws: Mapping[str, int] | None = None
    """What it drew of each, by its record."""
    evaluated: frozenset[str] = frozenset()
    """Keys of the rows that it was evaluated on."""
    removed: frozenset[str] | None = None
    """Ids of the rows that its audit removed; None: it is not trained yet."""


@dataclass(frozen=True)
class StageMixture:
    mixture: Mixture | None
    """None when no data set of the stage is on this machine."""
    sources: tuple[SourceRecord, ...]
    absent: tuple[AbsentSource, ...]
    notices: tuple[str, ...]
    encoded: Encoded = field(default_factory=dict)
    """Rows that had to be encoded to know their size."""
    findings: tuple[Finding, ...] = ()
    """Of the audit among the stage's own rows."""


def mix_stage(
    settings: StageSettings,
    chat: ChatFormat | None,
    *,
    allow_download: bool,
    earlier: Sequence[ReplayedStage] = (),
    clean: Clean = keep_all,
) -> StageMixture:
    """Sources → examples → what `clean` leaves of them → mixture. Problems of all data sets are raised
    together."""
    pool, notices = NO_REPLAY, list[str]()
    if settings.data.replay:
        pool, notices = _pool(settings, chat, earlier, clean, allow_download=allow_download)
    mixed = _own_mixture(settings, chat, pool, clean, allow_download=allow_download)
    return replace(mixed, notices=(*mixed.notices, *notices))


def _own_mixture(
    settings: StageSettings,
    chat: ChatFormat | None,
    replay: ReplayPool,
    clean: Clean,
    *,
    allow_download: bool,
) -> StageMixture:
    data = settings.data
    loaded = load_sources(data, strict=settings.strict, allow_download=allow_download, keep=keeper(data))
    tables, notices = _tables(loaded.sources, strict=settings.strict)
    records = tuple(
        SourceRecord(s.id, s.name, s.split, s.weight, len(s.rows), s.fingerprint) for s in loaded.sources
    )
    notices = [*loaded.notices, *notices]
    if not tables:
        return StageMixture(None, records, loaded.absent, tuple(notices))
    cleaned = clean(settings, chat, tables, allow_download)
    tables, notices = [*cleaned.tables], [*notices, *cleaned.notices]
    encoded: Encoded = {}
    if data.mix_unit != "rows":
        everything = (example for table in tables for example in table.examples)
        encoded, refused = encode_rows(chat, everything, settings)
        notices += refused
    mixture = plan_mixture(
        tables,
        val_ratio=data.val_ratio,
        seed=settings.seed,
        rules=data.upsample_rules if data.use_upsampling else {},
        # A rule may be meant for a data set that is not here yet.
        strict=settings.strict and not loaded.absent,
        algebra=Algebra.of(data),
        sizes={name: size_in(data.mix_unit, row) for name, row in encoded.items()} if encoded else None,
        negatives=NegativeRule.of(data),
        replay=replay,
    )
    if settings.audit.mode != "off":
        lines = audit_lines(cleaned.findings, removed=settings.audit.mode == "remove")
        mixture = replace(mixture, ledger=replace(mixture.ledger, audit=lines))
    notices += mixture.notices
    return StageMixture(mixture, records, loaded.absent, tuple(notices), encoded, cleaned.findings)


def _tables(sources: Sequence[Source], *, strict: bool) -> tuple[list[SourceRows], list[str]]:
    tables: list[SourceRows] = []
    problems: list[Problem] = []
    notices: list[str] = []
    for source in sources:
        try:
            table, row_notices = read_examples(source, strict=strict)
        except InputError as error:
            problems += error.problems
        else:
            tables.append(table)
            notices += row_notices
    if problems:
        raise InputError(problems)
    return tables, notices


def _pool(
    settings: StageSettings,
    chat: ChatFormat | None,
    earlier: Sequence[ReplayedStage],
    clean: Clean,
    *,
    allow_download: bool,
) -> tuple[ReplayPool, list[str]]:
    """What the earlier stages drew, from their own data sets mixed again by their own settings."""
    if not earlier:
        return NO_REPLAY, [
            f"[WARNING] SFT_REPLAY={settings.data.replay:g}: no earlier stage to draw from that is trained, "
            "or that this command trains first"
        ]
    sources: list[ReplaySource] = []
    evaluated = _evaluation_keys(settings, allow_download=allow_download)
    problems: list[Problem] = []
    notices: list[str] = []
    for stage in earlier:
        number = stage.settings.stage
        try:
            as_then = replace(stage.settings, strict=stage.settings.strict and settings.strict)
            clean_then = clean if stage.removed is None else without_rows(stage.removed)
            mixed = _own_mixture(as_then, chat, NO_REPLAY, clean_then, allow_download=allow_download)
        except InputError as error:  # where data changed, that is the reason to name
            raise InputError([*_local_changes(settings, stage), *error.problems]) from error
        notices += [
            f"data set {absent.id} of stage {number} is not on this machine: its replay is not counted"
            for absent in mixed.absent
        ]
        evaluated |= stage.evaluated | _evaluation_keys(stage.settings, allow_download=allow_download)
        if mixed.mixture is None:
            continue
        evaluated |= {example.key for example in mixed.mixture.validation}
        problems += _changes(settings, stage, mixed)
        names = [line.id for line in mixed.mixture.ledger.sources]
        sources += [
            ReplaySource.of(number, name, [row for row in mixed.mixture.train if row.source == name])
            for name in names
        ]
    if problems and settings.strict:
        raise InputError(problems)
    notices += [
        f"[WARNING] {problem.where}: {problem.value}; it is replayed as it is" for problem in problems
    ]
    return ReplayPool(settings.data.replay, tuple(sources), frozenset(evaluated)), notices


def _evaluation_keys(settings: StageSettings, *, allow_download: bool) -> frozenset[str]:
    """Keys of the rows that a stage's answers are scored on, beside its validation rows."""
    name = settings.evaluation.dataset_id
    keep = keeper(settings.data)
    loaded = load_source(name, "train", allow_download=allow_download, keep=keep) if name else None
    if loaded is None:
        return frozenset()
    rows, _ = read_examples(Source(name, name, "train", None, *loaded), strict=False)
    return frozenset(example.key for example in rows.examples)


def _changes(settings: StageSettings, stage: ReplayedStage, mixed: StageMixture) -> list[Problem]:
    """Data sets of an earlier stage that are no longer what it learned from."""
    number, recorded = stage.settings.stage, stage.fingerprints
    if recorded is None or mixed.mixture is None:
        return []
    present = {source.name: source.fingerprint for source in mixed.sources}
    changed = _changed(recorded, present)
    reasons = dict.fromkeys(changed, CHANGED)
    drawn = Counter(example.source for example in mixed.mixture.train)
    for name, count in (stage.draws or {}).items():
        if drawn[name] != count and not changed:
            reasons[name] = f"its mix now draws {drawn[name]} rows, not the {count} of its record"
    return [_problem(settings, number, name, reason) for name, reason in reasons.items()]


def _local_changes(settings: StageSettings, stage: ReplayedStage) -> list[Problem]:
    """The same for data sets on this machine, without mixing them."""
    changed = _changed(stage.fingerprints or {}, local_fingerprints(stage.settings.data.mix))
    return [_problem(settings, stage.settings.stage, name, CHANGED) for name in changed]


def _changed(recorded: Mapping[str, str], present: Mapping[str, str]) -> list[str]:
    return [name for name, digest in present.items() if recorded.get(name) not in (None, digest)]


def _problem(settings: StageSettings, number: int, name: str, reason: str) -> Problem:
    return Problem(
        where=f"stage {number}: {name}",
        key="SFT_REPLAY",
        value=reason,
        expected=f"the rows that stage {number} learned from",
        remedy=f"put the data set back, train stage {number} again, or set SFT_STRICT=0 or "
        f"SFT_REPLAY=0 in {settings.env_file}",
    )
