"""Writers for the five formats, and strict readers that prove a text holds exactly a given document.

Each format has one canonical spelling: a tiny model cannot also learn which of several equal spellings is
wanted. XML and CSV know only text, so there the comparison is between texts.
"""

from __future__ import annotations

import csv
import io
import json
import re
import tomllib
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape, quoteattr

import yaml

FORMATS = ("json", "yaml", "toml", "xml", "csv")
PLAIN_YAML = re.compile(r"[A-Za-z\u3040-\u9fff][\w\u3040-\u9fff .\-]*(?<! )")


def as_text(value: Any) -> str:
    """A scalar as XML and CSV spell it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def quoted(value: Any) -> str:
    """A scalar as JSON spells it, which is also valid TOML and YAML."""
    return json.dumps(value, ensure_ascii=False)


def write_json(document: Any, root: str) -> str:
    return json.dumps(document, ensure_ascii=False, indent=2)


def yaml_scalar(value: Any) -> str:
    """Plain where YAML reads the same string back, quoted otherwise."""
    if isinstance(value, str) and PLAIN_YAML.fullmatch(value) and yaml.safe_load(value) == value:
        return value
    return quoted(value)


def yaml_lines(value: dict[str, Any], indent: str) -> list[str]:
    lines: list[str] = []
    for key, item in value.items():
        head = f"{indent}{yaml_scalar(key)}:"
        if isinstance(item, dict):
            lines += [head, *yaml_lines(item, indent + "  ")]
        elif isinstance(item, list) and item:
            lines.append(head)
            for entry in item:
                nested = isinstance(entry, dict)
                block = yaml_lines(entry, indent + "    ") if nested else [yaml_scalar(entry)]
                lines += [f"{indent}  - {block[0].strip()}", *block[1:]]
        else:
            lines.append(f"{head} {'[]' if item == [] else yaml_scalar(item)}")
    return lines


def write_yaml(document: dict[str, Any], root: str) -> str:
    return "\n".join(yaml_lines(document, ""))


def toml_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else quoted(key)


def toml_lines(table: dict[str, Any], path: str) -> list[str]:
    """Plain keys first: after a header every key would belong to the sub-table."""
    lines: list[str] = []
    tables: list[str] = []
    for key, value in table.items():
        name = f"{path}.{toml_key(key)}" if path else toml_key(key)
        if isinstance(value, dict):
            tables += ["", f"[{name}]", *toml_lines(value, name)]
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for entry in value:
                tables += ["", f"[[{name}]]", *toml_lines(entry, name)]
        else:
            lines.append(f"{toml_key(key)} = {quoted(value)}")
    return lines + tables


def write_toml(document: dict[str, Any], root: str) -> str:
    return "\n".join(toml_lines(document, "")).strip()


def xml_lines(tag: str, value: Any, indent: str) -> list[str]:
    """A list is the element repeated; keys that start with @ are attributes."""
    if isinstance(value, list):
        return [line for entry in value for line in xml_lines(tag, entry, indent)] or [f"{indent}<{tag}/>"]
    if not isinstance(value, dict):
        text = escape(as_text(value))
        return [f"{indent}<{tag}>{text}</{tag}>" if text else f"{indent}<{tag}/>"]
    attributes = [f" {key[1:]}={quoteattr(as_text(item))}" for key, item in value.items() if key[0] == "@"]
    children = [(key, item) for key, item in value.items() if key[0] != "@"]
    inner = [line for key, item in children for line in xml_lines(key, item, indent + "  ")]
    return [f"{indent}<{tag}{''.join(attributes)}>", *inner, f"{indent}</{tag}>"]


def write_xml(document: dict[str, Any], root: str) -> str:
    return "\n".join(xml_lines(root, document, ""))


def write_csv(document: dict[str, Any], root: str) -> str:
    """A table document: one key that holds flat records of equal keys."""
    (rows,) = document.values()
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(rows[0])
    writer.writerows([as_text(value) for value in row.values()] for row in rows)
    return stream.getvalue().strip("\n")


WRITERS = {"json": write_json, "yaml": write_yaml, "toml": write_toml, "xml": write_xml, "csv": write_csv}


def write(document: dict[str, Any], target: str, root: str) -> str:
    """The document in a format; `root` is the XML root element."""
    return WRITERS[target](document, root)


def element_tree(element: ElementTree.Element) -> Any:
    """(attributes, children in order) or the text of a leaf."""
    if len(element) == 0 and not element.attrib:
        return element.text or ""
    return dict(element.attrib), [(child.tag, element_tree(child)) for child in element]


def expected_tree(value: Any) -> Any:
    """What `element_tree` must give for a document."""
    if not isinstance(value, dict):
        return as_text(value)
    attributes = {key[1:]: as_text(item) for key, item in value.items() if key[0] == "@"}
    children = []
    for key, item in value.items():
        if key[0] != "@":
            entries = (item or [""]) if isinstance(item, list) else [item]
            children += [(key, expected_tree(entry)) for entry in entries]
    return attributes, children


def holds(text: str, target: str, document: dict[str, Any], root: str) -> bool:
    """Whether a strict parser reads exactly this document from the text."""
    if target == "json":
        return bool(json.loads(text) == document)
    if target == "yaml":
        return bool(yaml.safe_load(text) == document)
    if target == "toml":
        return tomllib.loads(text) == document
    if target == "xml":
        tree = ElementTree.fromstring(text)
        return tree.tag == root and element_tree(tree) == expected_tree(document)
    (rows,) = document.values()
    table = list(csv.reader(io.StringIO(text), strict=True))
    return table == [list(rows[0]), *([as_text(value) for value in row.values()] for row in rows)]
