"""The verdicts as a table for a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lib.preflight.check import CheckedStage
from lib.settings.errors import printable

STYLES = {"ok": "green", "warning": "yellow", "failed": "bold red"}


def print_checked(checked: CheckedStage, console: Console) -> None:
    """One line a verdict; a remedy stands below what was found."""
    table = Table(
        title=f"Stage {checked.stage}", title_justify="left", title_style="bold", box=None, pad_edge=False
    )
    table.add_column("check", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("found", overflow="fold")
    for verdict in checked.verdicts:
        remedy = f"\n[bold]remedy:[/] {escape(printable(verdict.remedy))}" if verdict.remedy else ""
        style = STYLES[verdict.state]
        found = escape(printable(verdict.found)) + remedy
        table.add_row(escape(verdict.name), f"[{style}]{verdict.state}[/]", found)
    console.print("")
    console.print(table)
    console.print(f"  {summary(checked)}")


def summary(checked: CheckedStage) -> str:
    """`2 failed, 1 warning, 17 ok`."""
    states = [verdict.state for verdict in checked.verdicts]
    counts = [
        (states.count("failed"), "failed"),
        (states.count("warning"), "warning"),
        (states.count("ok"), "ok"),
    ]
    return ", ".join(
        f"{number} {name}{'s' * (name == 'warning' and number > 1)}" for number, name in counts if number
    )
