"""The data of a stage, from its settings to encoded rows: what a run trains on, what a plan shows of it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice

from lib.data.chat import ChatFormat
from lib.data.encoded import EncodedRow
from lib.data.first_problems import FirstProblems
from lib.data.ledger import MixLedger, TokenCount, with_token_counts
from lib.data.masks import EncodingRules
from lib.data.mixture import Mixture, plan_mixture
from lib.data.packing import Pack, PackCount, pack_rows, rows_alone
from lib.data.rows import Example, SourceRows, read_examples
from lib.data.sources import AbsentSource, Source, load_source, load_sources
from lib.data.token_guess import guess_row
from lib.settings.errors import InputError, Problem
from lib.settings.schema import StageSettings

# Under half a second of tokenising on one core: a plan stays well under the time that importing torch takes.
PLAN_CHARACTERS = 250_000
"""What one command may tokenise, shared by the stages that it plans."""
_SAMPLED_DRAWS_PER_SOURCE = 20


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
class PreparedData:
    train: tuple[EncodedRow, ...]
    """One entry per draw, in training order; a row drawn three times is the same object three times."""
    packs: tuple[Pack, ...]
    """The sequences that are trained on, each as positions in `train`: of one row without SFT_PACKING."""
    validation: tuple[EncodedRow, ...]
    mixture: Mixture
    """The conversations behind the rows, for generation and previews."""
    ledger: MixLedger
    """With exact token counts."""
    sources: tuple[SourceRecord, ...]
    notices: tuple[str, ...]


@dataclass(frozen=True)
class PlannedData:
    mixture: Mixture | None
    """None when no data set of the stage is on this machine."""
    ledger: MixLedger | None
    """Over the data sets that are here; token counts may be estimates (`ledger.estimated`)."""
    sources: tuple[SourceRecord, ...]
    absent: tuple[AbsentSource, ...]
    """Data sets that the run will download: while there are any, the ledger is not the whole mix."""
    notices: tuple[str, ...]


def prepare_rows(settings: StageSettings, chat: ChatFormat) -> PreparedData:
    """Everything that the stage trains and validates on, downloading Hub data sets that are missing.

    Raises InputError for data sets, rows, rules and templates that are wrong, and when no row is left.
    """
    mixed = _mix(settings, allow_download=True)
    mixture = mixed.mixture
    if mixture is None:
        raise AssertionError("with downloads allowed every data set is loaded or an error")
    rows, notices = _encode(chat, [*mixture.train, *mixture.validation], settings)
    ledger = with_token_counts(mixture.ledger, mixture.train, mixture.validation, rows)
    train = tuple(rows[example.row_id] for example in mixture.train if rows[example.row_id].usable)
    validation = tuple(rows[example.row_id] for example in mixture.validation if rows[example.row_id].usable)
    if not train:
        raise InputError([_nothing_left(ledger, settings)])
    packs, packed = _pack([len(row.input_ids) for row in train], settings)
    ledger = replace(ledger, packed=packed)
    packing = (f"Packed {packed.rows:,} rows into {packed.line()}",) if packed else ()
    return PreparedData(
        train,
        packs,
        validation,
        mixture,
        ledger,
        mixed.sources,
        (*mixed.notices, *chat.notices, *notices, *_loss_notices(ledger), *packing),
    )


def plan_rows(
    settings: StageSettings, chat: ChatFormat | None, *, characters: int = PLAN_CHARACTERS
) -> PlannedData:
    """The same, cheaply and without any download, for a plan.

    Up to `characters` every distinct row is encoded and the counts are exact; beyond, a sample of the
    draws is encoded and scaled. Without a tokenizer on this machine the counts are guessed from characters.
    """
    mixed = _mix(settings, allow_download=False)
    mixture = mixed.mixture
    if mixture is None:
        return PlannedData(None, None, mixed.sources, mixed.absent, mixed.notices)
    everything = list({e.row_id: e for e in (*mixture.train, *mixture.validation)}.values())
    complete = sum(example.characters for example in everything) <= characters
    chosen = everything if complete else _sample(mixture, characters)
    notices: Sequence[str] = ()
    if chat is None:
        rules = EncodingRules.of(settings.data)
        rows = {example.row_id: guess_row(example, rules) for example in chosen}
    else:
        rows, notices = _encode(chat, chosen, settings)
    estimated = chat is None or not complete
    ledger = with_token_counts(mixture.ledger, mixture.train, mixture.validation, rows, estimated=estimated)
    count = ledger.encoded or TokenCount()
    if not estimated and not count.rows:
        raise InputError([_nothing_left(ledger, settings)])
    known = (rows[example.row_id] for example in mixture.train if example.row_id in rows)
    lengths = [len(row.input_ids) for row in known if row.usable]
    # What was not encoded is taken to be as long as what was.
    ledger = replace(ledger, packed=_pack(list(islice(cycle(lengths), count.rows)), settings)[1])
    notices = (*mixed.notices, *(chat.notices if chat else ()), *notices, *_loss_notices(ledger))
    return PlannedData(mixture, ledger, mixed.sources, mixed.absent, notices)


def _pack(lengths: Sequence[int], settings: StageSettings) -> tuple[tuple[Pack, ...], PackCount | None]:
    """The sequences of rows of these lengths, and how full they are where rows are packed."""
    if not settings.data.packing:
        return rows_alone(len(lengths)), None
    capacity = settings.data.max_seq_len
    packs = pack_rows(lengths, capacity=capacity, seed=settings.seed)
    return packs, PackCount.of(lengths, packs, capacity)


def load_examples(name: str, split: str, *, strict: bool) -> tuple[tuple[Example, ...], tuple[str, ...]]:
    """The usable rows of one data set outside the mix (an evaluation set), and notices."""
    loaded = load_source(name, split)
    if loaded is None:
        raise AssertionError("with downloads allowed a data set is loaded or an error")
    rows, notices = read_examples(Source(name, name, split, None, *loaded), strict=strict)
    return tuple(rows.examples), notices


def load_mixture(settings: StageSettings) -> Mixture:
    """The conversations that the stage trains and validates on, without encoding them."""
    mixture = _mix(settings, allow_download=True).mixture
    if mixture is None:
        raise AssertionError("with downloads allowed every data set is loaded or an error")
    return mixture


def prepare_heldout(settings: StageSettings, mixture: Mixture) -> tuple[Example, ...]:
    """The rows that answers are scored on: SFT_GEN_EVAL_DATASET_ID, else the validation rows."""
    name = settings.evaluation.dataset_id
    if not name:
        return mixture.validation
    examples, _ = load_examples(name, "train", strict=settings.strict)
    return examples


@dataclass(frozen=True)
class _Mixed:
    mixture: Mixture | None
    sources: tuple[SourceRecord, ...]
    absent: tuple[AbsentSource, ...]
    notices: tuple[str, ...]


def _mix(settings: StageSettings, *, allow_download: bool) -> _Mixed:
    """Sources → examples → mixture. Problems of all data sets are raised together."""
    data = settings.data
    loaded = load_sources(data, strict=settings.strict, allow_download=allow_download)
    notices = list(loaded.notices)
    tables: list[SourceRows] = []
    problems: list[Problem] = []
    for source in loaded.sources:
        try:
            table, row_notices = read_examples(source, strict=settings.strict)
        except InputError as error:
            problems += error.problems
        else:
            tables.append(table)
            notices += row_notices
    if problems:
        raise InputError(problems)
    records = tuple(
        SourceRecord(s.id, s.name, s.split, s.weight, len(s.rows), s.fingerprint) for s in loaded.sources
    )
    if not tables:
        return _Mixed(None, records, loaded.absent, tuple(notices))
    mixture = plan_mixture(
        tables,
        val_ratio=data.val_ratio,
        seed=settings.seed,
        total_size=data.mix_total_size,
        rules=data.upsample_rules if data.use_upsampling else {},
        # A rule may be meant for a data set that is not here yet.
        strict=settings.strict and not loaded.absent,
    )
    return _Mixed(mixture, records, loaded.absent, (*notices, *mixture.notices))


def _encode(
    chat: ChatFormat, examples: Iterable[Example], settings: StageSettings
) -> tuple[dict[str, EncodedRow], list[str]]:
    """Each distinct row once, by row id. Rows that the template refuses: InputError, or lenient a notice."""
    distinct = list({example.row_id: example for example in examples}.values())
    encoded = chat.encode(distinct, EncodingRules.of(settings.data))
    notices = []
    if encoded.problems:
        refused = FirstProblems()
        refused.extend(encoded.problems)
        if settings.strict:
            raise InputError(refused.all_shown("data", "rows that the chat template refuses", len(distinct)))
        first = encoded.problems[0]
        notices.append(
            f"[ERROR] the chat template refuses {refused.total} of {len(distinct)} rows, which were dropped; "
            f"the first is {first.where}: {first.expected}"
        )
    return {row.row_id: row for row in encoded.rows}, notices


def _sample(mixture: Mixture, budget: int) -> list[Example]:
    """The first draws of the shuffled order, up to the character budget, and some of every source."""
    chosen: dict[str, Example] = {}
    of_source: dict[str, int] = {}
    characters = 0
    for example in (*mixture.train, *mixture.validation):
        taken = of_source.get(example.source, 0)
        if characters < budget or taken < _SAMPLED_DRAWS_PER_SOURCE:
            of_source[example.source] = taken + 1
            characters += 0 if example.row_id in chosen else example.characters
            chosen[example.row_id] = example
    return list(chosen.values())


def _loss_notices(ledger: MixLedger) -> list[str]:
    """What truncation and masks cost: never silent."""
    count = ledger.encoded or TokenCount()
    about = "about " if ledger.estimated else ""
    losses = (
        (count.truncated, "had their prompt cut from the left to fit SFT_MAX_SEQ_LEN"),
        (count.too_long, "were dropped: the answer alone is longer than SFT_MAX_SEQ_LEN"),
        (count.nothing_supervised, "were dropped: no token of the answer would be learned"),
    )
    return [f"[WARNING] {about}{n} of {ledger.upsampled} draws {text}" for n, text in losses if n]


def _nothing_left(ledger: MixLedger, settings: StageSettings) -> Problem:
    count = ledger.encoded or TokenCount()
    length, masked = settings.data.max_seq_len, "SFT_OUTPUT_MARKERS and SFT_MASK_COT"
    causes = (
        (count.too_long, f"SFT_MAX_SEQ_LEN={length}", "raise SFT_MAX_SEQ_LEN"),
        (count.nothing_supervised, masked, f"check {masked}: nothing follows the marker in the answers"),
        (count.unrenderable, "SFT_CHAT_TEMPLATE", "choose another SFT_CHAT_TEMPLATE"),
        (int(ledger.upsampled == 0), "SFT_UPSAMPLE_RULES", "raise the multipliers: they leave no row"),
    )
    _, key, remedy = max(causes, key=lambda cause: cause[0])
    return Problem(
        where=", ".join(line.id for line in ledger.sources),
        key=key,
        value=(
            f"0 of {ledger.upsampled} draws left: {count.too_long} too long, "
            f"{count.nothing_supervised} without a learned token, {count.unrenderable} refused by template"
        ),
        expected="at least one row to train on",
        remedy=remedy,
    )
