"""What keeps the rows of large data sets on disk, as the settings say."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lib.data.cache import DataCache
from lib.data.reading.sources import Keep, NormalizedRows
from lib.data.reading.split_parts import SplitPart
from lib.settings.schema import DataSettings


def keeper(data: DataSettings) -> Keep | None:
    """None where SFT_CACHE_DIR switches it off."""
    cache = DataCache.of(data)
    return _InCache(cache, data.streaming) if cache else None


@dataclass(frozen=True)
class _InCache:
    """Imports pyarrow only when there is something to keep: small data do without."""

    cache: DataCache
    streaming: bool

    def files(self, files: Sequence[Path], part: SplitPart, fingerprint: str) -> NormalizedRows | None:
        from lib.data.stored.examples import keep_files

        return keep_files(self.cache, files, part, fingerprint)

    def stream(self, name: str, part: SplitPart) -> tuple[NormalizedRows, str] | None:
        from lib.data.stored.streams import keep_stream

        return keep_stream(self.cache, name, part) if self.streaming else None
