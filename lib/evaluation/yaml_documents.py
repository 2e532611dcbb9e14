"""YAML as PyYAML's safe loader reads it, hardened. The pure Python loader: libyaml needs a minute for an
answer of 100,000 opening brackets, because its time is quadratic in the depth."""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml

from lib.evaluation.bounds import DEEPEST

SENTENCE = re.compile(r"[.,;!?]\s|[。、！？]|^\S+(\s+\S+){6}")
"""What a key is not: punctuation between words, or seven words and more."""


class YamlLoader(yaml.SafeLoader):
    """Without aliases, which can unfold to gigabytes (no honest answer needs one), and of bounded depth."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias")
        if self.depth >= DEEPEST:
            raise yaml.YAMLError(f"deeper than {DEEPEST} levels")
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


class StrictYamlLoader(YamlLoader):
    """Also refuses mappings with equal keys, and those whose keys are sentences: that is prose with a
    colon."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        scalars = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        names = [(key.tag, key.value) for key in scalars]
        if len(set(names)) < len(names):
            raise yaml.YAMLError("a mapping with two equal keys")
        if any(key.style is None and SENTENCE.search(key.value) for key in scalars):
            raise yaml.YAMLError("a key that is a sentence")
        return super().construct_mapping(node, deep)


def read_yaml(text: str) -> Any:
    """The mapping or list in `text`. Raises ValueError and RecursionError."""
    value = load_yaml(text, StrictYamlLoader)
    if not isinstance(value, dict | list):
        raise ValueError("neither a mapping nor a list")
    return value


def load_yaml(text: str, loader: type[YamlLoader]) -> Any:
    """Whatever `text` is in YAML. Raises ValueError and RecursionError."""
    try:
        return yaml.load(text, loader)  # a SafeLoader
    except (yaml.YAMLError, LookupError, AttributeError, TypeError, ArithmeticError) as error:
        # PyYAML's constructors trip over scalars that do not fit their tag, such as `!!int ""`.
        raise ValueError(str(error)) from error
