"""The files of a base model on this machine: where they lie, which of them is what. Free of torch."""

from __future__ import annotations

from pathlib import Path

from lib.failures.explain import Explanation, explain
from lib.failures.known import ABOUT_THE_HUB, TOKENIZER_PACKAGE
from lib.failures.two_readings import A_MODEL, two_readings
from lib.files import read_json
from lib.model.foreign_code import asks_for_code, own_code, pickled_model, pickled_weights
from lib.settings import InputError, ModelSettings

CONFIG_FILES = frozenset({"config.json", "generation_config.json"})
TOKENIZER_SUFFIXES = frozenset({".json", ".txt", ".model", ".tiktoken"})
TOKENIZER_NAMES = (
    "tokenizer",
    "special_tokens",
    "added_tokens",
    "vocab",
    "merges",
    "spiece",
    "sentencepiece",
)
TEMPLATE_FILE = "chat_template.jinja"
INDEX = "model.safetensors.index.json"
# What a model consists of besides weights: configuration, tokenizer, templates.
SIDE_FILES = ("*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken", "LICENSE*", "NOTICE*")
TEMPLATES = "additional_chat_templates/*.jinja"
# Beside these, repositories hold the same weights in other formats.
FETCHED = (*SIDE_FILES, "model*.safetensors")


def base_folder(model: ModelSettings) -> Path | None:
    """Where the base model's files are on this machine; None when they have to be downloaded."""
    folder = Path(model.base_model).expanduser()
    return folder if folder.is_dir() else hub_snapshot(model.base_model, model.base_revision)


def hub_snapshot(base_model: str, revision: str) -> Path | None:
    """Folder of a Hub model in the local cache, None when it is not there. Never asks the network."""
    if Path(base_model).expanduser().exists() or base_model.count("/") > 1:
        return None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(base_model, "config.json", revision=revision or None)
    except HFValidationError:
        return None
    return Path(found).parent if isinstance(found, str) else None


def base_is_here(model: ModelSettings) -> bool:
    """Whether nothing of the model has to be downloaded. A local folder is taken as it is."""
    if Path(model.base_model).expanduser().is_dir():
        return True
    snapshot = hub_snapshot(model.base_model, model.base_revision)
    return snapshot is not None and _is_whole(snapshot)


def fetch_base(model: ModelSettings) -> None:
    """Download a Hub model. Raises InputError when that cannot be done."""
    from huggingface_hub import snapshot_download

    try:
        snapshot_download(
            model.base_model,
            revision=model.base_revision or None,
            allow_patterns=list(FETCHED),
            ignore_patterns=["*/*"],
        )
    except (OSError, ValueError) as error:
        raise base_error(model.base_model, error) from error
    if not base_is_here(model):
        raise base_error(model.base_model, OSError("it has no complete set of model*.safetensors"))


def obtain_base_folder(model: ModelSettings) -> Path:
    """The folder with the base model's files, downloaded when they are not all on this machine.

    Raises InputError when there is no such model here and it cannot be fetched.
    """
    if not base_is_here(model):
        fetch_base(model)
    folder = base_folder(model)
    assert folder is not None, "what is here has a folder"
    return folder


def side_files(folder: Path) -> list[Path]:
    """The files that a copy of the model needs besides its weights, relative to `folder`."""
    found = {path for pattern in (*SIDE_FILES, TEMPLATES) for path in folder.glob(pattern) if path.is_file()}
    return sorted(path.relative_to(folder) for path in found)


def weight_files(folder: Path) -> list[Path]:
    """Configuration and weights, by name."""
    return [path for path in _files(folder) if path.name in CONFIG_FILES or ".safetensors" in path.suffixes]


def _is_whole(folder: Path) -> bool:
    """Whether every shard is there: an interrupted download, or a tokenizer alone, is no model."""
    names = {path.name for path in _files(folder)}
    if INDEX not in names:
        return any(name.endswith(".safetensors") for name in names)
    try:
        shards = read_json(folder / INDEX)["weight_map"].values()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return True  # damaged: the loader says so; its content counts all the same
    return names.issuperset(shards)


def tokenizer_files(folder: Path) -> list[Path]:
    """The tokenizer's files, by name, without a chat template of its own file."""
    return [
        path
        for path in _files(folder)
        if path.suffix in TOKENIZER_SUFFIXES and path.name.startswith(TOKENIZER_NAMES)
    ]


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file())


def base_error(path: str, error: Exception) -> InputError:
    """The user's view of what transformers raises when a model or tokenizer cannot be loaded."""
    if asks_for_code(error):
        return own_code(path)
    pickles = pickled_weights(Path(path)) if Path(path).is_dir() else []
    if pickles:
        return InputError([pickled_model("base model", path, pickles)])
    first_line = next(
        (line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__
    )
    found = explain(error)
    readings = two_readings(path, A_MODEL, found)
    return InputError.of(
        where="base model",
        key="SFT_BASE_MODEL",
        value=path,
        expected=readings.expected
        if readings
        else f"a model folder or a Hub id that can be read ({first_line})",
        remedy=readings.remedy if readings else _remedy(path, found),
    )


def _remedy(path: str, found: Explanation | None) -> str:
    local = Path(path).exists()
    # Of a folder that lacks files transformers says that packages are missing, or the Hub.
    if found and not (local and found.failure.name in {TOKENIZER_PACKAGE, *ABOUT_THE_HUB}):
        return f"{found.failure.remedy} ({found.failure.cause})"
    if local:
        return "look at what the folder lacks: config.json, tokenizer.json and *.safetensors are needed"
    return "give the path of a model folder, or an id that is in the Hub cache or can be downloaded"
