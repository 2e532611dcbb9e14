"""A tokenizer folder, read without transformers: tokenizer.json, special tokens and chat template."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from lib.files import read_json
from lib.settings.errors import InputError

TOKENIZER_CONFIG = "tokenizer_config.json"
_NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


@dataclass(frozen=True)
class TokenizerFiles:
    tokenizer: Tokenizer
    special_tokens: Mapping[str, str]
    """bos_token, eos_token, … → text; only those that exist."""
    chat_template: str | None


def read_tokenizer_files(folder: Path) -> TokenizerFiles | None:
    """What the folder holds; None without tokenizer.json (only transformers can build such a tokenizer).

    InputError when a file is there but broken.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        return None
    try:
        tokenizer = Tokenizer.from_file(str(path))
    # The bindings raise a bare Exception for a file that they cannot parse.
    except Exception as error:
        raise _broken(path, str(error)) from error
    config = _json_object(folder / TOKENIZER_CONFIG)
    special_tokens = _special_tokens({**_json_object(folder / "special_tokens_map.json"), **config})
    try:
        _add_missing_tokens(tokenizer, config.get("added_tokens_decoder") or {}, special_tokens)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise _broken(folder / TOKENIZER_CONFIG, f"tokens that are none: {error}") from error
    return TokenizerFiles(tokenizer, special_tokens, _chat_template(folder, config))


def read_chat_template(folder: Path) -> str | None:
    """The template that comes with a tokenizer. InputError for a broken file, OSError for an unreadable
    one."""
    return _chat_template(folder, _json_object(folder / TOKENIZER_CONFIG))


def _special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    texts = {name: _token_text(config.get(name)) for name in _NAMED_TOKENS}
    return {name: text for name, text in texts.items() if text}


def _token_text(token: Any) -> str | None:
    """A token is written as text or as {"content": text, …}."""
    text = token.get("content") if isinstance(token, Mapping) else token
    return text if isinstance(text, str) else None


def _add_missing_tokens(tokenizer: Tokenizer, decoder: Mapping[str, Any], special: Mapping[str, str]) -> None:
    """Tokens that only tokenizer_config.json names, as transformers adds them."""
    known = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    for _, fields in sorted(decoder.items(), key=lambda item: int(item[0])):
        if fields["content"] not in known:
            tokenizer.add_tokens([AddedToken(**{key: fields[key] for key in _FLAGS if key in fields})])
            known.add(fields["content"])
    for text in special.values():
        if text not in known:
            tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False)])
            known.add(text)


_FLAGS = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")


def _chat_template(folder: Path, config: Mapping[str, Any]) -> str | None:
    """chat_template.jinja wins over tokenizer_config.json, where it is text or a list of named templates."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        try:
            return path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise _broken(path, str(error)) from error
    template = config.get("chat_template")
    if isinstance(template, list):
        named = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, Mapping)}
        template = named.get("default")
    return template if isinstance(template, str) else None


def _json_object(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = read_json(path)
    except ValueError as error:
        raise _broken(path, str(error)) from error
    if not isinstance(content, dict):
        raise _broken(path, f"a JSON {type(content).__name__}, not an object")
    return content


def _broken(path: Path, reason: str) -> InputError:
    return InputError.of(
        where=str(path),
        key="tokenizer",
        value=reason,
        expected="a readable tokenizer file",
        remedy="fetch the model's tokenizer files again, or check SFT_BASE_MODEL",
    )
