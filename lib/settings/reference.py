"""The settings reference, generated: `python -m lib.settings.reference [--write]`."""

import sys
from pathlib import Path
from typing import Any

from lib.settings.keys import Key, groups_by_field, keys_by_field
from lib.settings.schema import StageSettings

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"

INTRODUCTION = """\
# Settings

<!-- Generated from lib/settings/schema by `python -m lib.settings.reference --write`. Do not edit it. -->

A stage is one file, `stages/stageN.env`. Every line sets one key; every key that is not set has its default.

## Where a value comes from

`--set KEY=VALUE` counts over the process environment, that over the stage file, that over the default:

    SFT_LR=2e-5 python train.py --stage 2 --set SFT_EPOCHS=2

An empty value (`SFT_DATASET_MIX=`) takes a key back to its default, also when the file sets it.
Of two `--set` for one key the last one counts. `python train.py --stage N --plan` shows what counts and why.

From the process environment only the keys of this page are read.

## How the file is written

    # a comment
    SFT_LR=5e-5                  # a comment needs a blank before its #
    SFT_OUT_LORA_DIR=~/output/structured_qwen3
    SFT_DATASET_MIX='[
      {"id": "me/general", "weight": 1.0},
      {"id": "data/toml.jsonl", "weight": 2.0, "split": "train"}
    ]'

- The text is UTF-8. JSON stands between single quotes and may run over several lines. `export KEY=…` works.
- A leading `~` is the home folder, in paths and in models and data sets on this machine.
- The file is data, not shell: `${NAME}` and `$(command)` are ordinary text.
- Numbers are finite and plain: 2048, 0.05 and 1e-4, not 1_000; whole numbers have no exponent.

## What is refused

- a key given twice, a line without `=`, a malformed line, a file that is not UTF-8
- an unknown `SFT_*` key, in the file, in the environment or in `--set`
- a value that its key does not allow
- values that contradict each other

All of it is reported at once, each problem with file and line, key, value, what is expected and how to mend
it. The exit code is then 2 and nothing was started.

Other keys in a stage file, such as `HF_TOKEN`, are not settings: they are ignored, with a notice that does
not show their value. Passwords in addresses are hidden wherever a value is shown or recorded.

With `SFT_STRICT=0`, the default, a mix that is not JSON is only a warning as long as `SFT_DATASET_IDS` or
`SFT_DATASET_ID` can take its place. A missing earlier adapter and a data set that fails to load are warnings
too.
"""


def reference() -> str:
    """The whole page, in Markdown."""
    sections = [_section("Run", "The stage as a whole.", StageSettings)]
    for name, settings in groups_by_field(StageSettings).items():
        summary = (settings.__doc__ or "").partition("\n")[0]
        sections.append(_section(name.capitalize(), summary, settings))
    return "\n".join([INTRODUCTION, *sections])


def main(arguments: list[str]) -> None:
    if arguments == ["--write"]:
        PAGE.write_text(reference(), encoding="utf-8")
    else:
        print(reference(), end="")


def _section(title: str, summary: str, settings: type[Any]) -> str:
    rows = [
        _row(key, alternatives) for alternatives in keys_by_field(settings).values() for key in alternatives
    ]
    head = ["| key | allowed | default | unit | meaning |", "|---|---|---|---|---|"]
    return "\n".join([f"## {title}", "", summary, "", *head, *rows, ""])


def _row(key: Key, alternatives: tuple[Key, ...]) -> str:
    cells = (f"`{key.env}`", key.reader.allowed, _default(key, alternatives), key.unit, key.meaning)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _default(key: Key, alternatives: tuple[Key, ...]) -> str:
    if key.default is None:
        return "**required**" if len(alternatives) == 1 else "**one of these is required**"
    return f"`{key.default}`" if key.default else "empty"


if __name__ == "__main__":
    main(sys.argv[1:])
