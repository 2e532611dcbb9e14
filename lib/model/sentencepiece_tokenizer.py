"""What transformers leaves undone for tokenizers that are a SentencePiece model and no tokenizer.json."""

from __future__ import annotations

import importlib.util
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Name to install -> name to import.
READERS = {"sentencepiece": "sentencepiece", "protobuf": "google.protobuf"}


def missing_readers(error: Exception) -> list[str]:
    """Packages to install when `error` is about one that is not there; empty for any other error.

    Without sentencepiece transformers 5 takes the file for one of tiktoken's, which then cannot read it.
    """
    words = str(error).lower()
    if not any(name in words for name in (*READERS, "tiktoken", "error parsing line")):
        return []
    return [package for package, module in READERS.items() if not _is_there(module)]


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its parent is not there either
        return False


def with_own_unknown_token(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """`tokenizer`, or a like one whose unknown characters become its `unk_token`.

    T5Tokenizer of transformers 5.23 makes token 2 the unknown one, as in T5. In other models of that class it
    is another: in rinna's, where `<unk>` is 0 and `</s>` is 2, each unknown character would end the text. The
    new one is of the plain class, so that it is still right when it is loaded from where it is saved.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or type(backend.model).__name__ != "Unigram" or not tokenizer.unk_token:
        return tokenizer
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    content = json.loads(backend.to_str())
    pieces = [piece for piece, _ in content["model"]["vocab"]]
    if tokenizer.unk_token not in pieces:
        return tokenizer
    own = pieces.index(tokenizer.unk_token)
    if content["model"]["unk_id"] == own:
        return tokenizer
    content["model"]["unk_id"] = own
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(content)),
        model_max_length=tokenizer.model_max_length,
        model_input_names=tokenizer.model_input_names,
        chat_template=tokenizer.chat_template,
        **tokenizer.special_tokens_map,
    )
