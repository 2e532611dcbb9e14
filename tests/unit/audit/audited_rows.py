"""Short ways to write rows, data sets and stages for the audit."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lib.data.chat.chat_format import ChatFormat
from lib.data.reading.rows import Example, to_example
from lib.data.reading.sources import Source, load_source
from lib.data.reading.usable_rows import SourceRows, read_examples
from lib.settings import StageSettings, load_stage

TINY = Path(__file__).parents[3] / "assets/tiny-moe"
Row = Mapping[str, Any]


def row(question: str, answer: str, **fields: Any) -> dict[str, Any]:
    return {
        "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
        **fields,
    }


def example(question: str, answer: str, index: int = 0, source: str = "a", **fields: Any) -> Example:
    return to_example(row(question, answer, **fields), source, index)


def table(rows: Sequence[Row], name: str = "a") -> SourceRows:
    return SourceRows(name, None, tuple(to_example(each, name, i) for i, each in enumerate(rows)))


class Folder:
    """Stage files and data sets in one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "stages").mkdir()

    def data(self, name: str, rows: Sequence[Row]) -> str:
        path = self.root / name
        path.write_text("".join(json.dumps(each, ensure_ascii=False) + "\n" for each in rows), "utf-8")
        return str(path)

    def stage(self, number: int = 1, **keys: Any) -> StageSettings:
        values = {"SFT_BASE_MODEL": "base", "SFT_OUT_LORA_DIR": self.root / "out", "SFT_VAL_RATIO": 0, **keys}
        lines = (f"{key}='{value}'\n" for key, value in values.items())
        (self.root / "stages" / f"stage{number}.env").write_text("".join(lines))
        return load_stage(self.root / "stages", number, environ={})

    @staticmethod
    def tables(settings: StageSettings) -> list[SourceRows]:
        found = []
        for entry in settings.data.mix:
            loaded = load_source(entry.id, entry.split)
            assert loaded is not None
            source = Source(entry.id, entry.id, entry.split, entry.weight, *loaded)
            found.append(read_examples(source, strict=False)[0])
        return found


def sentence(number: int) -> str:
    """A text of its own for every number, of about 200 characters."""
    return " ".join(f"{(number * 7919 + place * 104729) % 1000003:06d}" for place in range(30))


def tiny_chat(template: str = "") -> ChatFormat:
    """The embedded base's tokenizer with this template."""
    loaded = ChatFormat.load(TINY, template)
    assert loaded is not None
    return loaded
