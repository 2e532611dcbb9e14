"""Data sets of the Hugging Face Hub: loading through `datasets`, or reading what its cache already holds."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lib.data.reading.broken_rows import Row
from lib.failures.explain import Explanation, explain, known
from lib.failures.known import GATED, OFFLINE
from lib.failures.two_readings import SOME_ROWS, two_readings
from lib.settings.errors import InputError

_HUB_ID = re.compile(r"^[\w.\-]+(/[\w.\-]+)?$")
_PARTIAL_SPLIT = re.compile(r"[\[+]")


def is_hub_id(name: str) -> bool:
    return _HUB_ID.match(name) is not None


@dataclass(frozen=True)
class HubSplit:
    """A split of a Hub data set, or a part of one, on this machine."""

    rows: int
    fingerprint: str
    files: tuple[Path, ...]
    """Arrow files that hold the whole split, in the order of its rows; () where nothing tells which."""
    read: Callable[[], list[Row]]
    """All rows into memory."""


def load_from_hub(name: str, split: str) -> HubSplit:
    """A Hub data set, downloaded when it is not cached; `datasets` sees to it that one process does so.

    Raises InputError saying what failed (unknown, gated, no network, not cached, no such split) and the
    remedies. With HF_HUB_OFFLINE or HF_DATASETS_OFFLINE set, `datasets` reads its cache and tries no network.
    """
    import datasets

    try:
        table = datasets.load_dataset(name, split=split)
    # HTTP client, file system, builders and pyarrow raise types of their own; to the user each of them means
    # that this data set could not be loaded, so each becomes one message.
    except Exception as error:
        raise load_error(name, split, error) from error
    files = tuple(Path(file["filename"]) for file in table.cache_files)
    return HubSplit(table.num_rows, str(table._fingerprint), files, table.to_list)


def cached_files(name: str, split: str, environ: Mapping[str, str] = os.environ) -> list[Path]:
    """The files of a split in the cache of `datasets`, without importing it; none when it is not there.

    The newest copy is read. A part of a split ("train[:100]") is left to `datasets`.
    """
    if _PARTIAL_SPLIT.search(split):
        return []
    builds = {path.parent for path in _cache_folder(name, environ).glob(f"*/*/*/*-{split}*.arrow")}
    if not builds:
        return []
    newest = max(builds, key=lambda build: (build.stat().st_mtime_ns, build.name))
    pattern = re.compile(rf"-{re.escape(split)}(-\d+-of-\d+)?\.arrow$")
    return sorted(path for path in newest.glob("*.arrow") if pattern.search(path.name))


def _cache_folder(name: str, environ: Mapping[str, str]) -> Path:
    home = environ.get("HF_HOME") or os.path.join(environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    root = Path(environ.get("HF_DATASETS_CACHE") or os.path.join(home, "datasets")).expanduser()
    namespace, _, dataset = name.rpartition("/")
    snake = _snake_case(dataset)
    return root / (f"{namespace}___{snake}" if namespace else snake)


def _snake_case(name: str) -> str:
    """As `datasets` names its cache folders (datasets.naming.camelcase_to_snakecase)."""
    name = re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", name)
    return re.sub(r"([a-z\d])([A-Z])", r"\1_\2", name).lower()


def load_error(name: str, split: str, error: Exception) -> InputError:
    """The user's view of what `datasets` raises."""
    text = next(iter(str(error).splitlines()), type(error).__name__)
    found = Explanation(known(OFFLINE), text) if is_offline() else explain(error)
    if "gated" in text.lower():  # `datasets` calls it not found
        found = Explanation(known(GATED), text)
    readings = two_readings(name, SOME_ROWS, found)
    if readings:
        expected, remedy = readings
    elif "split" in text.lower():
        expected = f"a split that the data set has ({text})"
        remedy = 'set "split" in SFT_DATASET_MIX to one of them'
    else:
        expected = f"a data set that `datasets` can load ({type(error).__name__})"
        remedy = "download it and give a local path (.jsonl, .json, .parquet, .csv or a folder)"
    return InputError.of(
        where=name, key="data set", value=f"split {split}: {text}", expected=expected, remedy=remedy
    )


def is_offline(environ: Mapping[str, str] = os.environ) -> bool:
    on = {"1", "true", "yes", "on"}
    return any(environ.get(key, "").lower() in on for key in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"))
