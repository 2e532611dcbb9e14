"""Content → one HTML file that needs nothing but itself."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Iterable
from pathlib import Path

import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from lib.files import write_text
from lib.report import wording
from lib.report.charts import figures, label_fields
from lib.report.content import ReportContent
from lib.report.next_stage_text import next_stage_text
from lib.report.samples import label_choices

REPORT = "report.html"
FOLDER = Path(__file__).parent
SHOWN_TOKENS = 2_000
"""Of a masked row; the end is what matters, since answers are learned."""


def write_report(path: Path, content: ReportContent) -> None:
    """The page is there whole or not at all (temporary file, rename)."""
    # Line ends as they are: a browser that allows scripts by their hash sees the same bytes.
    write_text(path, page(content))


def page(content: ReportContent) -> str:
    """The HTML text: about 5 MB, nearly all of it plotly (the Python package ships no smaller build)."""
    scripts = [get_plotlyjs(), (FOLDER / "page.js").read_text(encoding="utf-8")]
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(
        content=content,
        charts={name: _chart_json(figure) for name, figure in figures(content).items()},
        label_fields=label_fields(content.ledger),
        has_intervals=any(score.after and score.after.interval for score in content.scores),
        shown_tokens=SHOWN_TOKENS,
        next_stage_file=next_stage_text(content.next_stage),
        label_choices=label_choices(content.samples),
        words=wording,
        style=Markup((FOLDER / "page.css").read_text(encoding="utf-8")),
        scripts=[Markup(script) for script in scripts],
        policy=_policy(scripts),
    )


def _chart_json(figure: go.Figure) -> Markup:
    """JSON inside a script element: no text of it can close the element. NaN becomes null."""
    return Markup(figure.to_json().replace("<", "\\u003c"))


def _policy(scripts: Iterable[str]) -> str:
    """No network, and only these scripts: even a mistake in escaping could run nothing."""
    hashes = (b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{value}'" for value in hashes)
    return (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src {allowed}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
