"""A configuration of another trainer: which one it is, and which of its keys were looked at."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from lib.settings.errors import InputError

AXOLOTL, LLAMA_FACTORY = "Axolotl", "LLaMA-Factory"
# The key that names the model, and keys that only this trainer has: one of them must be there too.
_MARKS = {
    AXOLOTL: (
        "base_model",
        {"datasets", "sequence_len", "micro_batch_size", "num_epochs", "lora_r", "adapter", "val_set_size"},
    ),
    LLAMA_FACTORY: (
        "model_name_or_path",
        {"finetuning_type", "cutoff_len", "lora_target", "lora_rank", "template", "dataset_dir", "stage"},
    ),
}
SHOWN_KEYS = 12
MOST_BYTES = 2**20
MOST_NODES = 50_000
"""With every alias written out, which is how its values are shown and how `<<` copies them."""


class _UniqueKeys(yaml.SafeLoader):
    """A key that is given twice is an error; PyYAML's own loader keeps the last one without a word. Aliases
    may not unfold without bound."""

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None:
            _check_size(node)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise yaml.constructor.ConstructorError(
                None, None, f"{', '.join(twice)} given twice", node.start_mark
            )
        return super().construct_mapping(node, deep)


def _check_size(root: yaml.Node) -> None:
    """YAMLError for more nodes than a configuration has; a node within itself has no end of them."""
    waiting, seen = [root], 0
    while waiting:
        node = waiting.pop()
        seen += 1
        if seen + len(waiting) > MOST_NODES:
            raise yaml.YAMLError(f"its aliases unfold to more than {MOST_NODES:,} values")
        if isinstance(node, yaml.MappingNode):
            waiting += [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value


class Section:
    """A mapping of the configuration. Whatever nobody took is left over, so that no key is lost unsaid."""

    def __init__(self, values: Mapping[str, Any], prefix: str = "") -> None:
        self._values = {str(key): value for key, value in values.items()}
        self._prefix = prefix
        self._taken: set[str] = set()

    def take(self, key: str, default: Any = None) -> Any:
        """The value of a key, from now on dealt with; the default when it is missing or null."""
        self._taken.add(key)
        value = self._values.get(key)
        return default if value is None else value

    def name(self, key: str) -> str:
        """The key as the user finds it: `datasets[0].path`."""
        return f"{self._prefix}{key}"

    def all_keys(self) -> tuple[str, ...]:
        """All keys, in the order of the file."""
        return tuple(self._values)

    def left(self) -> dict[str, Any]:
        """What nobody took, in the order of the file."""
        return {key: value for key, value in self._values.items() if key not in self._taken}


def read_config(path: Path) -> tuple[str, Section]:
    """Name of the trainer and its keys.

    Raises InputError for what is no readable YAML mapping, and for keys that are neither trainer's.
    """
    try:
        document = yaml.load(_text(path), Loader=_UniqueKeys)
    except (OSError, UnicodeDecodeError) as error:
        raise _refusal(
            path, f"a readable file in UTF-8 ({error})", "Correct the path or the file."
        ) from error
    # PyYAML's constructors trip over values that do not fit their tag, such as `!!int ""`.
    except (yaml.YAMLError, RecursionError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise _refusal(path, f"YAML ({' '.join(str(error).split())})", "Mend the file.") from error
    if not isinstance(document, dict):
        raise _refusal(
            path, "keys and values at the top of the file", "Name the training configuration itself."
        )
    keys = {str(key) for key in document}
    found = [name for name, (model, own) in _MARKS.items() if model in keys and own & keys]
    if len(found) != 1:
        names = sorted(keys)
        more = f" and {len(names) - SHOWN_KEYS} more" if len(names) > SHOWN_KEYS else ""
        raise InputError.of(
            where=str(path),
            key="keys",
            value=", ".join(names[:SHOWN_KEYS]) + more,
            expected="a configuration of Axolotl (base_model, datasets, …) or of LLaMA-Factory "
            "(model_name_or_path, finetuning_type, template, …)",
            remedy="Write the stage file by hand; docs/settings.md has all keys.",
        )
    return found[0], Section(document)


def _text(path: Path) -> str:
    """The whole file. OSError for what has no end or never begins: a device, a pipe."""
    if path.exists() and not path.is_file():
        raise OSError("no ordinary file")
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"more than {MOST_BYTES:,} bytes")
    return path.read_text(encoding="utf-8-sig")


def _refusal(path: Path, expected: str, remedy: str) -> InputError:
    return InputError.of(where=str(path), expected=expected, remedy=remedy)
