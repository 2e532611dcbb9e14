"""The data of a stage, from its settings to encoded rows: what a run trains on, what a plan shows of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import compress

from lib.data.chat.chat_format import ChatFormat
from lib.data.chat.encoded import EncodedRow
from lib.data.encoding import Encoded, encode_rows, known_rows
from lib.data.garbage import seldom_collected
from lib.data.keeping import keeper
from lib.data.losses import loss_notices, nothing_left
from lib.data.mixing.cleaning import Clean, Finding, keep_all
from lib.data.mixing.ledger import MixLedger, with_token_counts
from lib.data.mixing.mixture import Mixture
from lib.data.mixing.negatives import NegativeRule
from lib.data.mixing.realised import missed_shares, with_trained_rows, with_usable_negatives
from lib.data.order.order import TrainingOrder
from lib.data.order.packing import Pack, rows_alone
from lib.data.order.schedule import Schedule
from lib.data.reading.rows import Example
from lib.data.reading.sources import AbsentSource, Keep, Source, load_source
from lib.data.reading.usable_rows import read_examples
from lib.data.stage_mixture import ReplayedStage, SourceRecord, mix_stage
from lib.data.stage_order import pack_stage, stage_order
from lib.data.stored.workers import kept_workers
from lib.settings.errors import InputError
from lib.settings.schema import StageSettings

# Under half a second of tokenising on one core: a plan stays well under the time that importing torch takes.
PLAN_CHARACTERS = 250_000
"""What one command may tokenise, shared by the stages that it plans."""
_SAMPLED_DRAWS_PER_SOURCE = 20


@dataclass(frozen=True)
class PreparedData:
    train: tuple[EncodedRow, ...]
    """One entry per draw of an epoch; a row drawn three times is the same object three times."""
    validation: tuple[EncodedRow, ...]
    schedule: Schedule
    """The order in which `train` is gone through, epoch by epoch and step by step."""
    mixture: Mixture
    """The conversations behind the rows, for generation and previews."""
    ledger: MixLedger
    """With exact token counts, and the rows of all steps that are planned."""
    negatives: NegativeRule
    sources: tuple[SourceRecord, ...]
    notices: tuple[str, ...]
    findings: tuple[Finding, ...] = ()
    """Of the audit."""

    @property
    def order(self) -> TrainingOrder:
        """Of `packs`."""
        return self.schedule.order

    @property
    def packs(self) -> tuple[Pack, ...]:
        """The sequences that are trained on, each as positions in `train`: of one row without SFT_PACKING."""
        return self.schedule.packs or rows_alone(len(self.train))

    def ledger_after(self, steps: int) -> MixLedger:
        """The ledger of a run that took so many steps: it may have stopped early."""
        usable = {row.row_id for row in self.train}
        rows = [example for example in self.mixture.train if example.row_id in usable]
        return with_trained_rows(self.ledger, rows, self.schedule.times(steps), steps, self.negatives)


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
    findings: tuple[Finding, ...] = ()
    """Of the audit."""


@seldom_collected()
@kept_workers()
def prepare_rows(
    settings: StageSettings,
    chat: ChatFormat,
    *,
    processes: int = 1,
    earlier: Sequence[ReplayedStage] = (),
    clean: Clean = keep_all,
) -> PreparedData:
    """Everything that the stage trains and validates on, downloading Hub data sets that are missing.

    `processes` share a batch; `earlier` are the stages that SFT_REPLAY draws from; `clean` is the audit.
    Raises InputError for data sets, rows, rules and templates that are wrong, for a share of negatives that
    is missed (strict), and when no row is left.
    """
    mixed = mix_stage(settings, chat, allow_download=True, earlier=earlier, clean=clean)
    mixture = mixed.mixture
    if mixture is None:
        raise AssertionError("with downloads allowed every data set is loaded or an error")
    rows, notices = _encoded(mixed.encoded, chat, [*mixture.train, *mixture.validation], settings)
    counted = _counted(mixture, rows, settings, processes)
    if not counted.train:
        raise InputError([nothing_left(counted.ledger, settings)])
    return PreparedData(
        train=_all_encoded(counted.train),
        validation=_all_encoded(counted.validation),
        schedule=counted.schedule,
        mixture=mixture,
        ledger=counted.ledger,
        negatives=NegativeRule.of(settings.data),
        sources=mixed.sources,
        notices=(*mixed.notices, *chat.notices, *notices, *counted.notices),
        findings=mixed.findings,
    )


@seldom_collected()
def plan_rows(
    settings: StageSettings,
    chat: ChatFormat | None,
    *,
    characters: int = PLAN_CHARACTERS,
    processes: int = 1,
    earlier: Sequence[ReplayedStage] = (),
    clean: Clean = keep_all,
) -> PlannedData:
    """The same, cheaply and without any download, for a plan.

    Up to `characters` every distinct row is encoded and the counts are exact; beyond, a sample of the
    draws is encoded and scaled. Without a tokenizer on this machine the counts are guessed from characters.
    A mix in tokens needs every row's, so there all are encoded.
    """
    mixed = mix_stage(settings, chat, allow_download=False, earlier=earlier, clean=clean)
    mixture = mixed.mixture
    if mixture is None:
        return PlannedData(None, None, mixed.sources, mixed.absent, mixed.notices)
    everything = list({e.row_id: e for e in (*mixture.train, *mixture.validation)}.values())
    known = mixed.encoded or known_rows(chat, everything, settings)
    unknown = sum(example.characters for example in everything if example.row_id not in known)
    complete = unknown <= characters
    chosen = everything if complete else _sample(mixture, characters)
    if not complete:  # a sample has to be as even over the data sets, whichever are prepared already
        known = {row.row_id: known[row.row_id] for row in chosen if row.row_id in known}
    rows, notices = _encoded(known, chat, chosen, settings, kept=False)
    estimated = chat is None or not complete
    counted = _counted(mixture, rows, settings, processes, estimated=estimated)
    if not estimated and not counted.train:
        raise InputError([nothing_left(counted.ledger, settings)])
    notices = [*mixed.notices, *(chat.notices if chat else ()), *notices, *counted.notices]
    return PlannedData(mixture, counted.ledger, mixed.sources, mixed.absent, tuple(notices), mixed.findings)


def _encoded(
    known: Encoded,
    chat: ChatFormat | None,
    examples: Sequence[Example],
    settings: StageSettings,
    *,
    kept: bool = True,
) -> tuple[Encoded, list[str]]:
    """These rows encoded, but for those that are already."""
    unknown = [row for row in examples if row.row_id not in known] if known else examples
    rows, notices = encode_rows(chat, unknown, settings, kept=kept)
    return {**known, **rows} if known else rows, notices


def _all_encoded(rows: Sequence[EncodedRow | None]) -> tuple[EncodedRow, ...]:
    known = tuple(row for row in rows if row is not None)
    if len(known) < len(rows):
        raise AssertionError("a run encodes every row that it draws")
    return known


@dataclass(frozen=True)
class _Counted:
    """What is known of a mixture after encoding."""

    train: tuple[EncodedRow | None, ...]
    """The draws that are trained on; None for one that a plan did not encode."""
    validation: tuple[EncodedRow | None, ...]
    ledger: MixLedger
    schedule: Schedule
    notices: tuple[str, ...]


def _counted(
    mixture: Mixture, rows: Encoded, settings: StageSettings, processes: int, *, estimated: bool = False
) -> _Counted:
    """Every draw's encoded row is looked up once, here."""
    rule = NegativeRule.of(settings.data)
    drawn = [rows.get(example.row_id) for example in mixture.train]
    held_out = [rows.get(example.row_id) for example in mixture.validation]
    ledger = with_token_counts(mixture.ledger, mixture.train, drawn, held_out, estimated=estimated)
    ledger = with_usable_negatives(ledger, mixture.train, drawn, rule)
    usable = [row is None or row.usable for row in drawn]
    examples, train = tuple(compress(mixture.train, usable)), tuple(compress(drawn, usable))
    order, remarks = stage_order(settings, examples, train, processes=processes)
    packs, packed = pack_stage(settings, examples, train)
    if packed:
        order = TrainingOrder(packed.packs, settings.seed)
        ledger = replace(ledger, packed=packed)
        remarks.append(f"Packed {packed.rows:,} rows into {packed.line()}")
    schedule = Schedule.of(order, settings.training, processes, packs)
    if train:
        ledger = with_trained_rows(ledger, examples, schedule.times(), schedule.steps, rule)
    missed = missed_shares(ledger)
    if missed and settings.strict and not estimated:
        raise InputError(missed)
    remarks += [f"[WARNING] {problem.key} {problem.value}" for problem in missed]
    validation = tuple(row for row in held_out if row is None or row.usable)
    return _Counted(train, validation, ledger, schedule, (*loss_notices(ledger), *remarks))


def load_examples(
    name: str, split: str, *, strict: bool, keep: Keep | None = None
) -> tuple[tuple[Example, ...], tuple[str, ...]]:
    """The usable rows of one data set outside the mix (an evaluation set), and notices."""
    loaded = load_source(name, split, keep=keep)
    if loaded is None:
        raise AssertionError("with downloads allowed a data set is loaded or an error")
    rows, notices = read_examples(Source(name, name, split, None, *loaded), strict=strict)
    return tuple(rows.examples), notices


def load_mixture(
    settings: StageSettings,
    chat: ChatFormat,
    *,
    earlier: Sequence[ReplayedStage] = (),
    clean: Clean = keep_all,
) -> Mixture:
    """The conversations that the stage trains and validates on."""
    mixture = mix_stage(settings, chat, allow_download=True, earlier=earlier, clean=clean).mixture
    if mixture is None:
        raise AssertionError("with downloads allowed every data set is loaded or an error")
    return mixture


def prepare_heldout(settings: StageSettings, mixture: Mixture) -> tuple[Example, ...]:
    """The rows that answers are scored on: SFT_GEN_EVAL_DATASET_ID, else the validation rows."""
    name = settings.evaluation.dataset_id
    if not name:
        return mixture.validation
    examples, _ = load_examples(name, "train", strict=settings.strict, keep=keeper(settings.data))
    return examples


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
