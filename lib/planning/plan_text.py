"""A stage plan as text for a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from lib.data.order.packing import PackCount
from lib.model.quantization import loaded_as
from lib.planning.audit_text import audit_view
from lib.planning.estimates import Estimate
from lib.planning.plan import StagePlan

SHOWN_LABELS = 40


def print_plan(plan: StagePlan, console: Console) -> None:
    """Print one stage: state, base and parents, mix, labels, costs, settings that were set, notices."""
    verdict = "will run" if plan.will_run else "up to date, will be left alone"
    console.print(f"\n[bold]Stage {plan.stage}[/]  {escape(plan.file)}  ({plan.state}: {verdict})")
    if plan.goes_on_from:
        console.print(f"  goes on where it was interrupted: {plan.goes_on_from} (--restart begins anew)")
    for reason in plan.reasons:
        console.print(f"  stale: {escape(reason)}")
    _print_lineage(plan, console)
    if plan.ledger:
        tables = (_mix_table(plan.ledger), *_label_tables(plan.ledger), *_negative_tables(plan.ledger))
        console.print(Group(*tables))
    if plan.audit is not None:
        console.print(audit_view(plan.audit), soft_wrap=True)
    for name in plan.absent:
        console.print(
            f"  data set {escape(name)} is not on this machine: the run downloads it; it is not counted here"
        )
    _print_costs(plan, console)
    console.print(_settings_table(plan))
    for notice in plan.notices:
        console.print(Text(f"  {notice}", style="yellow" if notice.startswith("[") else ""))


def _print_lineage(plan: StagePlan, console: Console) -> None:
    base = plan.base
    here = "" if base["here"] else " (no such folder, and not in the Hub cache: the run downloads it)"
    console.print(
        f"  base     {escape(base['model'])}{here}{loaded_as(base['quantization'])}"
        + (f"  {base['architecture']}" if "architecture" in base else "")
    )
    if "parameters" in base:
        share = 100 * base["trainable"] / base["parameters"]
        trained = f"the new adapter trains {base['trainable']:,} ({share:.2f} %)"
        console.print(f"           {base['parameters']:,} parameters; {trained}")
    for parent in plan.parents:
        why = f": {'; '.join(parent['reasons'])}" if parent["reasons"] else ""
        state = f"({parent['state']}{escape(why)})"
        console.print(
            f"  {base['earlier_stages']:<8} stage {parent['stage']}  {escape(parent['folder'])}  {state}"
        )
    if plan.parents and base["quantization"] != "none":
        console.print("           merged into the unquantised weights, quantised when they are loaded")
    console.print(f"  output   {escape(plan.output)}\n  runs as  {plan.world}")


def _table(title: str, of: str, *numbers: str) -> Table:
    """Empty, with a column of names that may be long and others of numbers."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column(of, overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right")
    return table


def _mix_table(ledger: dict[str, Any]) -> Table:
    unit = ledger["unit"].replace("_", " ")
    title = "mix" if unit == "rows" else f"mix, weights and requests in {unit}"
    realised = [] if unit == "rows" else ["realised"]
    table = _table(
        title, "data set", "weight", "rows", "held out", "requested", *realised,
        "drawn", "upsampled", "repeats", "unseen", "trained", "learned tokens",
    )  # fmt: skip
    about = "≈ " if ledger["estimated"] else ""
    for line in ledger["sources"]:
        encoded = line["encoded"] or {}
        table.add_row(
            escape(line["id"]),
            _weight(line, ledger["weights"]),
            f"{line['rows']:,}",
            f"{line['validation']:,}",
            f"{line['requested']:,.1f}",
            *([] if unit == "rows" else [f"{line['realised']:,.0f}"]),
            f"{line['drawn']:,}",
            f"{line['upsampled']:,}",
            f"≤ {line['max_repeats']}",
            f"{line['unseen']:,}",
            _trained(line, about),
            f"{about}{encoded['supervised']:,}" if encoded else "?",
        )
    return table


def _weight(line: dict[str, Any], meaning: str) -> str:
    if line["replay_of"] is not None:
        return "replay"
    if line["weight"] is None:
        return "all"
    return {"share": "{:g}", "multiplier": "× {:g}", "cap": "≤ {:g}"}[meaning].format(line["weight"])


def _trained(line: dict[str, Any], about: str) -> str:
    """Rows over all steps."""
    return "?" if line["trained"] is None else f"{about}{line['trained']:,}"


def _negative_tables(ledger: dict[str, Any]) -> list[Table]:
    if not ledger["negatives"]:
        return []
    table = _table("negatives", "of", "rows", "negatives", "requested", "realised", "drawn", "trained")
    about = "≈ " if ledger["estimated"] else ""
    for line in ledger["negatives"]:
        table.add_row(
            "the whole mix" if line["scope"] == "*" else escape(line["scope"]),
            f"{line['rows']:,}",
            f"{line['negatives']:,}",
            "-" if line["requested"] is None else f"{100 * line['requested']:.1f} %",
            f"{100 * line['realised']:.1f} %",
            f"{line['drawn_negatives']:,} of {line['drawn']:,}",
            "?"
            if line["trained"] is None
            else f"{about}{line['trained_negatives']:,} of {about}{line['trained']:,}",
        )
    return [table]


def _label_tables(ledger: dict[str, Any]) -> list[Table]:
    if not ledger["labels"]:
        return []
    table = _table("labels", "label", "rows", "requested", "drawn", "share", "trained", "learned tokens")
    shown = [line for line in ledger["labels"] if line["drawn"]]
    few = sorted(shown, key=lambda line: -line["drawn"])[:SHOWN_LABELS]
    for line in sorted(few, key=lambda line: (line["field"], -line["drawn"])):
        encoded = line["encoded"] or {}
        table.add_row(
            escape(f"{line['field']}: {line['value']}"),
            f"{line['rows']:,}",
            f"{line['requested']:,.1f}",
            f"{line['drawn']:,}",
            f"{100 * line['share']:.1f} %",
            _trained(line, "≈ " if ledger["estimated"] else ""),
            f"{encoded['supervised']:,}" if encoded else "?",
        )
    if len(few) < len(shown):
        table.add_row(f"… and {len(shown) - len(few)} rarer ones (--json lists them)", *[""] * 6)
    return [table]


def _print_costs(plan: StagePlan, console: Console) -> None:
    ledger = plan.ledger or {}
    if plan.steps is not None:
        guessed = ledger["packed"] and ledger["estimated"] and plan.values["SFT_MAX_STEPS"] == "-1"
        about = "about " if guessed else ""
        console.print(f"[bold]costs[/]\n  steps    {about}{plan.steps:,}  ({plan.tokens:,} tokens)")
    console.print(
        Text(plan.batch["line"], style="yellow" if "[WARNING]" in plan.batch["line"] else ""), soft_wrap=True
    )
    if ledger.get("packed"):
        console.print(f"  packing  {_packing(ledger, plan.batch['global_batch'])}", soft_wrap=True)
    for name, estimate in plan.estimates.items():
        console.print(
            f"  {name:<8} about {estimate.text}  [dim]{escape(_basis(name, estimate))}[/]", soft_wrap=True
        )
        for line in estimate.lines:
            console.print(Text(f"           {line}", style="dim"), soft_wrap=True)


def _basis(name: str, estimate: Estimate) -> str:
    """What the number was made for; of what it consists the lines say, where there are any."""
    told = name == "memory" and estimate.lines
    return estimate.arithmetic.partition(":")[0] if told else estimate.arithmetic


def _packing(ledger: dict[str, Any], global_batch: int) -> str:
    """The sequences that batch sizes count under SFT_PACKING, and what that makes of a step."""
    packed = PackCount(**ledger["packed"])
    about = "about " if ledger["estimated"] else ""
    return (
        f"{about}{packed.line()}; a step takes {global_batch:,} of them, "
        f"about {packed.rows_per_pack * global_batch:,.0f} rows"
    )


def _settings_table(plan: StagePlan) -> Table:
    table = Table(title="settings", title_justify="left", title_style="bold", box=None, pad_edge=False)
    for name in ("key", "value", "from"):
        table.add_column(name, overflow="fold")
    in_order = sorted(plan.values, key=lambda key: plan.origins[key] == "default")
    for key in in_order:
        style = "dim" if plan.origins[key] == "default" else ""
        table.add_row(key, escape(" ".join(plan.values[key].split())) or "-", plan.origins[key], style=style)
    return table
