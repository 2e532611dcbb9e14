"""XML as mappings, lists and text.

An element is its text when it holds nothing else. Otherwise it is a mapping: `@name` for attributes, the
tag for a child, a list for children of the same tag in their order, `#text` for text beside them. The
document is a mapping from the root's tag. These are the paths that StructEval's rules name, too. The order
of children with different tags, comments and white space around text are no content.
"""

from __future__ import annotations

from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml.ElementTree import fromstring

from lib.evaluation.bounds import DEEPEST


def read_xml(text: str) -> dict[str, Any]:
    """The document; raises ValueError, also for any document type, which entity bombs need."""
    try:
        root: Element = fromstring(text, forbid_dtd=True)
    except ParseError as error:
        raise ValueError(str(error)) from error
    return {root.tag: _content(root, 1)}


def _content(element: Element, depth: int) -> Any:
    if depth > DEEPEST:
        raise ValueError(f"deeper than {DEEPEST} levels")
    children: dict[str, list[Any]] = {}
    for child in element:
        children.setdefault(child.tag, []).append(_content(child, depth + 1))
    content: dict[str, Any] = {f"@{name}": value for name, value in element.attrib.items()}
    content |= {tag: found if len(found) > 1 else found[0] for tag, found in children.items()}
    pieces = (piece.strip() for piece in (element.text or "", *(child.tail or "" for child in element)))
    text = " ".join(piece for piece in pieces if piece)
    if not content:
        return text
    return {**content, "#text": text} if text else content
