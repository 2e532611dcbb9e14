"""What stands at the top of the page: one sentence, the verdicts, and the numbers asked for first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Literal

from lib.evaluation.retention import headline_metric
from lib.report.scores import Retained, Score
from lib.report.wording import duration, enumeration, metric_words, number, score, short_name

Tone = Literal["good", "bad", "warning", "neutral"]


@dataclass(frozen=True)
class Badge:
    tone: Tone
    text: str


@dataclass(frozen=True)
class Fact:
    name: str
    value: str
    detail: str = ""


def curriculum_name(record: Mapping[str, Any]) -> str:
    """Stages of one curriculum share the name of their output folder."""
    return PurePath(record["settings"].get("SFT_OUT_LORA_DIR", "")).name or "unnamed"


def sentence(record: Mapping[str, Any], scored: Sequence[Score]) -> str:
    """What this stage is and what came of it, for someone who has never seen the tool."""
    ledger = record["data"]["ledger"]
    names = [short_name(line["id"]) for line in ledger["sources"]]
    trained = (
        f"Stage {record['stage']} of curriculum “{curriculum_name(record)}” trained a LoRA adapter "
        f"on {number(_trained_rows(ledger))} examples from {enumeration(names)} "
        f"for {_count(record['training']['steps'], 'step')}{_epochs(record['training'])}"
    )
    result = _result(record, scored)
    return f"{trained}; {result}." if result else f"{trained}."


def _result(record: Mapping[str, Any], scored: Sequence[Score]) -> str:
    metric = headline_metric(record["evaluation"])
    headline = next((s for s in scored if s.metric == metric), None)
    if headline is None or headline.after is None:
        return ""
    change = f"{score(headline.before.value)} → " if headline.before else ""
    return f"{metric_words(metric)}: {change}{score(headline.after.value)}"


def badges(record: Mapping[str, Any], kept: Sequence[Retained]) -> tuple[Badge, ...]:
    """Gates first, then what a reader should look at."""
    failed = [entry.stage for entry in kept if entry.passed is False]
    demanded = [entry.stage for entry in kept if entry.minimum is not None]
    found: list[Badge] = []
    if failed:
        found.append(Badge("bad", f"Gate failed: forgot too much of {_stages(failed)}"))
    elif demanded:
        found.append(Badge("good", f"Gate passed: still knows {_stages(demanded)}"))
    elif record["parents"]:
        found.append(Badge("neutral", "No gate on forgetting"))
    errors = sum(notice.startswith("[ERROR]") for notice in record["notices"])
    warnings = sum(notice.startswith("[WARNING]") for notice in record["notices"])
    if errors:
        found.append(
            Badge("bad", _count(errors, "error that was passed over", "errors that were passed over"))
        )
    if warnings or not errors:
        found.append(Badge("warning" if warnings else "good", _count(warnings, "warning")))
    return tuple(found)


def facts(record: Mapping[str, Any]) -> tuple[Fact, ...]:
    training, adapter, ledger = record["training"], record["adapter"], record["data"]["ledger"]
    learned = (ledger.get("encoded") or {}).get("supervised")
    trainable = adapter["trainable"]
    experts = f"{100 * adapter['experts'] / trainable:.0f} % in experts" if adapter.get("experts") else ""
    of_model = (
        f"{100 * trainable / (trainable + adapter['frozen']):.2g} % of the model"
        if "frozen" in adapter
        else ""
    )
    return (
        Fact("Training time", duration(training["seconds"]), f"{_count(training['steps'], 'step')}"),
        Fact(
            "Tokens read",
            number(training["tokens"]),
            f"{number(round(training['tokens_per_second']))} per second",
        ),
        Fact(
            "Examples in the mix",
            number(_trained_rows(ledger)),
            f"{number(learned)} tokens to learn" if learned is not None else "",
        ),
        Fact(
            "Parameters trained", number(trainable), ", ".join(text for text in (of_model, experts) if text)
        ),
        Fact("Peak memory", f"{training['peak_memory_bytes'] / 1e9:.1f} GB"),
    )


def _trained_rows(ledger: Mapping[str, Any]) -> int:
    """Draws that were trained on; draws that had to be dropped are not among them."""
    rows: int = (ledger.get("encoded") or {}).get("rows", ledger["upsampled"])
    return rows


def _stages(numbers: Sequence[int]) -> str:
    names = [str(number) for number in numbers]
    return f"stage{'s' if len(names) > 1 else ''} {enumeration(names, shown=len(names))}"


def _epochs(training: Mapping[str, Any]) -> str:
    """A run may end before every example was seen, or see them several times."""
    epochs = training.get("epochs")
    return "" if epochs is None else f" ({number(round(epochs, 2))} epoch{'' if epochs == 1 else 's'})"


def _count(amount: int, thing: str, things: str = "") -> str:
    shown = f"{amount:,}" if amount else "No"
    return f"{shown} {thing if amount == 1 else things or thing + 's'}"
