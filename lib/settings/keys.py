"""How a field of the settings declares its key: name, reader, unit, default and meaning beside the type."""

from collections.abc import Iterator
from dataclasses import field, fields, is_dataclass
from typing import Any, NamedTuple, TypeVar, cast

from lib.settings.readers import Reader

T = TypeVar("T")


class Key(NamedTuple):
    """One setting as the user writes it. `default` is text, read like any other value; None: required."""

    env: str
    default: str | None
    reader: Reader[Any]
    unit: str
    meaning: str
    known_as: tuple[str, ...] = ()  # what other trainers call it: only for did-you-mean


def key(
    env: str,
    default: str | None,
    reader: Reader[T],
    *,
    unit: str = "",
    meaning: str,
    known_as: tuple[str, ...] = (),
) -> T:
    """A dataclass field set by one key; a required one has no default."""
    return cast(T, first_of(Key(env, default, reader, unit, meaning, known_as)))


def first_of(*keys: Key) -> Any:
    """A dataclass field set by the first of several keys that is given."""
    metadata = {"keys": keys}
    default, reader = keys[0].default, keys[0].reader
    if default is None:
        return field(metadata=metadata)
    return field(default_factory=lambda: reader.parse(default), metadata=metadata)


def keys_by_field(settings: type[Any]) -> dict[str, tuple[Key, ...]]:
    """The keys of a settings class, by field, without those of its groups."""
    return {f.name: f.metadata["keys"] for f in fields(settings) if "keys" in f.metadata}


def groups_by_field(settings: type[Any]) -> dict[str, type[Any]]:
    """The fields that are settings classes themselves."""
    return {f.name: f.type for f in fields(settings) if isinstance(f.type, type) and is_dataclass(f.type)}


def all_keys(settings: type[Any]) -> Iterator[Key]:
    """Every key of a settings class and of its groups, in the order of declaration."""
    for keys in keys_by_field(settings).values():
        yield from keys
    for members in groups_by_field(settings).values():
        yield from all_keys(members)
