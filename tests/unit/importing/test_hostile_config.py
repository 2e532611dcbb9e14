"""Configurations that are made to do harm: bombs of aliases, tags that build objects, nesting, size."""

import os
import time
from pathlib import Path

import pytest

from lib.importing import import_config
from lib.importing.foreign import MOST_BYTES
from lib.settings import InputError

LAUGHS = "a0: &a0 [x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30)
)
MERGES = "a0: &a0 {x: 1}\n" + "".join(
    f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 30)
)
HOSTILE = {
    "aliases that multiply": LAUGHS,
    "merged mappings that multiply": MERGES,
    "a node within itself": "base_model: m\ndatasets: &d [*d]\n",
    "an object of Python": "base_model: !!python/object/apply:os.system ['touch fired']\ndatasets: []\n",
    "a module of Python": "base_model: !!python/module:own\n",
    "deep nesting": "base_model: " + "[" * 5_000,
    "deep nesting of blocks": "\n".join(" " * i + "a:" for i in range(3000)),
    "too long": "x: " + "y" * MOST_BYTES,
    "a tag that does not fit": "base_model: !!int ''\ndatasets: !!timestamp 5\n",
    "bytes": "base_model: \x01\n",
    "a key that is a list": "? [a, b]\n: c\n",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_it_is_refused_at_once_and_nothing_is_written(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yml").write_text(HOSTILE[name])
    started = time.thread_time()
    with pytest.raises(InputError, match=r"config\.yml"):
        import_config(tmp_path / "config.yml", tmp_path / "stages")
    assert time.thread_time() - started < 5
    assert [path.name for path in tmp_path.iterdir()] == ["config.yml"]


def test_what_has_no_end_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yml")
    for path in (tmp_path / "pipe.yml", Path("/dev/zero")):
        with pytest.raises(InputError, match="no ordinary file"):
            import_config(path, tmp_path / "stages")
