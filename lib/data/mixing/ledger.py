"""The realised mix in numbers: what was asked for and what is trained, by source and label. Pure data."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from lib.data.chat.encoded import EncodedRow
from lib.data.mixing.cleaning import AuditLine
from lib.data.order.packing import PackCount
from lib.data.reading.labels import Label
from lib.data.reading.rows import Example

SHOWN_LABELS = 200


@dataclass(frozen=True)
class TokenCount:
    """Draws counted after encoding. A row drawn three times counts three times."""

    rows: int = 0
    """Draws that are trained on."""
    tokens: int = 0
    """Tokens of these, after truncation."""
    longest: int = 0
    """Tokens of the longest of these that was encoded."""
    supervised: int = 0
    """Tokens of these that carry loss."""
    truncated: int = 0
    """Draws of these whose prompt was cut."""
    too_long: int = 0
    """Draws dropped: the answer alone exceeds SFT_MAX_SEQ_LEN."""
    nothing_supervised: int = 0
    """Draws dropped: no token of the answer carries loss."""
    unrenderable: int = 0
    """Draws dropped: the chat template refuses them (lenient mode)."""


@dataclass(frozen=True)
class SourceLine:
    id: str
    weight: float | None
    share: float
    """Normalised weight; without weights, the part of the training rows."""
    rows: int
    skipped: int
    """Rows that fit no format (lenient mode); not among `rows`."""
    distinct: int
    validation: int
    """Distinct rows held out on behalf of this source."""
    training: int
    """Rows left for training: duplicates counted, held-out content of any source excluded."""
    requested: float
    """What the weights ask for, in the unit of the mix, before limits and rounding."""
    drawn: int
    """Rows drawn for it."""
    upsampled: int
    """After the rules multiplied: the draws that go into training."""
    max_repeats: int
    """How often the most frequent row is drawn."""
    unseen: int
    """Training rows that are never drawn."""
    realised: float = 0.0
    """Size of the rows drawn, in the unit of the mix, before upsampling."""
    replay_of: int | None = None
    """The earlier stage that these rows are drawn from again; None: a data set of this stage's own mix."""
    encoded: TokenCount | None = None
    trained: int | None = None
    """Rows trained on over all steps: every epoch counts, and what the last step leaves out does not."""


@dataclass(frozen=True)
class LabelLine:
    field: str
    value: str
    rows: int
    """Training rows that carry it."""
    drawn: int
    """Draws that carry it, after upsampling."""
    share: float
    """Of all draws."""
    requested: float = 0.0
    """Draws that weights and rules ask for, before limits and rounding."""
    encoded: TokenCount | None = None
    trained: int | None = None


@dataclass(frozen=True)
class NegativeLine:
    """Negatives among the rows that can be told apart, in the stage's own mix."""

    scope: str
    """`*`: the whole mix; else a data set or a label."""
    requested: float | None
    """The share that SFT_NEGATIVE_SHARE asks for, in the unit of the mix."""
    rows: int
    """Training rows of the scope that can be told apart."""
    negatives: int
    """Of these, negatives."""
    drawn: int
    """Draws of the scope, after upsampling."""
    drawn_negatives: int
    realised: float
    """Their share, in the unit of the mix; of draws that are trained on, once rows are encoded."""
    trained: int | None = None
    trained_negatives: int | None = None


@dataclass(frozen=True)
class MixLedger:
    sources: tuple[SourceLine, ...]
    labels: tuple[LabelLine, ...]
    """The 200 most frequent, by field and then by value."""
    labels_left_out: int
    base_size: float
    """Size that is asked for in the unit of the mix, before limits and upsampling."""
    drawn: int
    upsampled: int
    """Draws that go into an epoch, with what is replayed of earlier stages."""
    validation: int
    unit: str = "rows"
    weights: str = "share"
    """What the weights of the sources mean."""
    replayed: int = 0
    """Draws from earlier stages, among `upsampled`."""
    negatives: tuple[NegativeLine, ...] = ()
    """Empty where nothing tells negatives from positives."""
    audit: tuple[AuditLine, ...] | None = None
    """What the audit found, and removed before anything above was counted; None with SFT_AUDIT=off."""
    encoded: TokenCount | None = None
    validation_encoded: TokenCount | None = None
    estimated: bool = False
    """True: the token counts are scaled up from a sample or guessed from characters."""
    steps: int | None = None
    """What `trained` counts: steps planned, in a record steps taken."""
    trained: int | None = None
    """Rows trained on in these steps, repeats counted."""
    packed: PackCount | None = None
    """The sequences that the rows were packed into; None: each row is one."""

    @property
    def sequences(self) -> int:
        """What batch sizes count: packed sequences, or rows."""
        if self.packed:
            return self.packed.packs
        return self.encoded.rows if self.encoded else self.upsampled

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def label_lines(
    rows: Iterable[Example], draws: Iterable[Example], requested: Mapping[Label, float]
) -> tuple[tuple[LabelLine, ...], int]:
    """One line per label, and how many rarer labels are left out."""
    row_counts = Counter(label for example in rows for label in example.labels)
    drawn = list(draws)
    draw_counts = Counter(label for example in drawn for label in example.labels)
    frequent = sorted(row_counts, key=lambda label: (-row_counts[label], label))[:SHOWN_LABELS]
    lines = tuple(
        LabelLine(
            *label,
            row_counts[label],
            draw_counts[label],
            draw_counts[label] / max(len(drawn), 1),
            requested.get(label, 0.0),
        )
        for label in sorted(frequent)
    )
    return lines, len(row_counts) - len(frequent)


def with_token_counts(
    ledger: MixLedger,
    draws: Sequence[Example],
    encoded: Sequence[EncodedRow | None],
    validation: Sequence[EncodedRow | None],
    *,
    estimated: bool = False,
) -> MixLedger:
    """The ledger with tokens counted, per source and per label.

    `encoded` are the draws' rows, None where one is not encoded: of a sample of the draws, each group's
    counts are scaled to all draws of the group. So are those of `validation`.
    """
    groups = _tallies(draws, encoded)

    def count(group: object) -> TokenCount | None:
        return groups.get(group, _Tally()).scaled()

    return replace(
        ledger,
        sources=tuple(_with_count(line, count(("source", line.id)), ledger.unit) for line in ledger.sources),
        labels=tuple(replace(line, encoded=count((line.field, line.value))) for line in ledger.labels),
        encoded=count(None),
        validation_encoded=_Tally.of(validation).scaled(),
        estimated=estimated,
    )


def _with_count(line: SourceLine, count: TokenCount | None, unit: str) -> SourceLine:
    """Replay asks for draws. Where the mix is in tokens they are worth what those drawn are on average."""
    if line.replay_of is None or unit == "rows" or count is None:
        return replace(line, encoded=count)
    size = float(count.tokens if unit == "tokens" else count.supervised)
    return replace(line, encoded=count, realised=size, requested=line.requested * size / max(line.drawn, 1))


def _tallies(draws: Sequence[Example], encoded: Sequence[EncodedRow | None]) -> dict[object, "_Tally"]:
    """Of all draws (None), of each source and of each label. Each draw is counted once, with those that have
    the same source and labels."""
    alike: defaultdict[tuple[str, tuple[Label, ...]], list[EncodedRow | None]] = defaultdict(list)
    for example, row in zip(draws, encoded, strict=True):
        alike[example.source, example.labels].append(row)
    groups: defaultdict[object, _Tally] = defaultdict(_Tally)
    for (source, labels), rows in alike.items():
        tally = _Tally.of(rows)
        for group in (None, ("source", source), *labels):
            groups[group].join(tally)
    return groups


class _Tally:
    """Sums over draws, of which some may not have been encoded."""

    def __init__(self) -> None:
        self.draws = 0
        self.known = 0
        self.usable = 0
        self.tokens = 0
        self.supervised = 0
        self.truncated = 0
        self.dropped: Counter[str] = Counter()
        self.longest = 0

    @classmethod
    def of(cls, rows: Sequence[EncodedRow | None]) -> "_Tally":
        """Of these draws; None is one that was not encoded."""
        tally = cls()
        known = [row for row in rows if row is not None]
        usable = [row for row in known if row.usable]
        tally.draws, tally.known, tally.usable = len(rows), len(known), len(usable)
        tally.tokens = sum([row.tokens for row in usable])
        tally.supervised = sum([row.supervised_tokens for row in usable])
        tally.truncated = sum([row.cut_tokens > 0 for row in usable])
        tally.longest = max([row.tokens for row in usable], default=0)
        tally.dropped = Counter(row.status for row in known if not row.usable)
        return tally

    def join(self, other: "_Tally") -> None:
        self.draws += other.draws
        self.known += other.known
        self.usable += other.usable
        self.tokens += other.tokens
        self.supervised += other.supervised
        self.truncated += other.truncated
        self.dropped.update(other.dropped)
        self.longest = max(self.longest, other.longest)

    def scaled(self) -> TokenCount | None:
        """For all draws of the group; None when it has draws and none of them was encoded."""
        if self.draws and not self.known:
            return None
        scale = self.draws / max(self.known, 1)
        return TokenCount(
            rows=round(self.usable * scale),
            tokens=round(self.tokens * scale),
            supervised=round(self.supervised * scale),
            truncated=round(self.truncated * scale),
            **{status: round(count * scale) for status, count in self.dropped.items()},
            longest=self.longest,
        )
