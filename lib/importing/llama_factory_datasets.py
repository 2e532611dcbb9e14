"""LLaMA-Factory's names of data sets, looked up in its dataset_info.json."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lib.files import parse_json
from lib.importing.draft import StageDraft, number, shown
from lib.importing.foreign import Section
from lib.importing.mix import DataSet, set_mix, write_mix
from lib.settings import InputError

INFO = "dataset_info.json"
_COLUMNS = {
    "alpaca": {"prompt": "instruction", "query": "input", "response": "output", "history": "history",
               "system": "system"},
    "sharegpt": {"messages": "conversations", "system": "system"},
}  # fmt: skip
_UNUSED = "this column is not trained"
_OTHER_COLUMNS = {
    "tools": "tool calls are not trained: write them into the content of the answers, or leave such rows out"
}
_JOINED = "instruction and input are joined by an empty line here, by a line break there"
_TAG_PAIRS = {("from", "value"), ("role", "content")}
_KNOWN_ROLES = {"human", "user", "gpt", "assistant", "system", "observation", "function_call", "tool"}
_NOT_NEEDED = (("formatting file_sha1", "told by the columns of the rows"),)
_ADVICE = (
    (
        "subset revision folder",
        "the default configuration at the newest version is loaded: save the other one as a file",
    ),
    ("ranking", "preference pairs are not trained"),
    ("script_url cloud_file_name ms_hub_url om_hub_url", "save the rows as a file and name that"),
)


class Catalogue:
    """dataset_info.json, from the working folder or from a folder above the configuration."""

    def __init__(self, folder: str, config: Path) -> None:
        places = [Path.cwd(), *config.resolve().parents]
        found = (place / folder for place in places if (place / folder / INFO).is_file())
        self.folder = next(found, None)
        self.wanted = f"{folder}/{INFO}"
        self.entries: Mapping[str, Any] = {}
        if self.folder is not None:
            document = _read_catalogue(self.folder / INFO)
            self.entries = document if isinstance(document, dict) else {}
            if self.folder.is_relative_to(Path.cwd()):
                self.folder = self.folder.relative_to(Path.cwd())


def _read_catalogue(path: Path) -> Any:
    try:
        return parse_json(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise InputError.of(
            where=str(path),
            expected=f"the JSON that describes the data sets ({error})",
            remedy="Mend the file, or name data sets of the Hub.",
        ) from error


def training_sets(section: Section, draft: StageDraft, config: Path) -> None:
    """Sets the mix as `mix_strategy` says, all rows of every set by default."""
    folder = str(section.take("dataset_dir", "data"))
    given, limit = section.take("dataset"), section.take("max_samples")
    names = _names(given)
    if not names:
        draft.refuse(section, "dataset", given, "at least one name")
        return
    sets = _look_up(section, draft, names, folder, config, limit, "dataset")
    strategy = str(section.take("mix_strategy", "concat"))
    weights = _names(section.take("interleave_probs"))
    if not strategy.startswith("interleave_") or strategy == "interleave_once" or len(sets) < 2:
        set_mix(draft, sets, shown("dataset", given), _JOINED)
        return
    shares = [number(weight) or 0 for weight in weights] or [1.0] * len(sets)
    if len(shares) != len(sets) or min(shares) <= 0:
        expected = "one number above 0 for each data set"
        draft.refuse(section, "interleave_probs", ", ".join(weights), expected)
        return
    differs = (
        "weights are parts of the mix as there, but the counts are exact and every row of a set is "
        "drawn equally often; "
        f"the mix is as large as its largest set, or SFT_DATASET_MIX_TOTAL_SIZE. {_JOINED}"
    )
    entries = [(entry.id, entry.split, share) for entry, share in zip(sets, shares, strict=True)]
    write_mix(
        draft,
        entries,
        f"{shown('dataset', given)}, interleave_probs: {', '.join(weights) or 'equal'}",
        differs,
    )
    if strategy == "interleave_under":
        draft.set(
            "SFT_MIX_EXHAUSTED",
            "stop",
            shown("mix_strategy", strategy),
            "the mix shrinks with its shares kept",
        )
    else:
        draft.set("SFT_MIX_EXHAUSTED", "repeat", shown("mix_strategy", strategy))


def evaluation_set(section: Section, draft: StageDraft, config: Path) -> bool:
    """Whether `eval_dataset` names one, which becomes the evaluation set."""
    given = section.take("eval_dataset")
    names = _names(given)
    if not names:
        return False
    folder = str(section.take("dataset_dir", "data"))
    sets = _look_up(section, draft, names, folder, config, None, "eval_dataset")
    differs = "its loss, and answers that are generated and scored"
    if sets[0].split != "train":
        differs += f"; split train is read here, not {sets[0].split}: save that split as a file"
    draft.set("SFT_GEN_EVAL_DATASET_ID", sets[0].id, shown("eval_dataset", given), differs)
    if len(names) > 1:
        advice = "one evaluation set a stage: put the files into one folder or file"
        draft.advise(section, "eval_dataset", given, advice)
    return True


def _names(given: Any) -> list[str]:
    if given is None:
        return []
    return [str(name).strip() for name in (given if isinstance(given, list) else str(given).split(","))]


def _look_up(
    section: Section, draft: StageDraft, names: list[str], folder: str, config: Path, limit: Any, key: str
) -> list[DataSet]:
    try:
        catalogue = Catalogue(folder, config)
    except (OSError, ValueError) as error:
        draft.refuse(section, "dataset_dir", folder, f"a readable {INFO} in it ({error})")
        return [DataSet(name, "train", key) for name in names]
    found = []
    for name in names:
        entry = catalogue.entries.get(name)
        if isinstance(entry, Mapping):
            found.append(_data_set(Section(entry, f"{name}."), draft, catalogue, limit, key, name))
            continue
        if catalogue.folder is None:
            why = f"{catalogue.wanted} was not found, here or above the configuration"
        else:
            why = f"{catalogue.folder / INFO} does not have it"
        advice = f"put its path or Hub id into the stage file in place of the name: {why}"
        draft.advise(section, key, name, advice)
        found.append(DataSet(name, _part("train", limit), key))
    return found


def _data_set(
    entry: Section, draft: StageDraft, catalogue: Catalogue, limit: Any, key: str, name: str
) -> DataSet:
    hub, file = entry.take("hf_hub_url"), entry.take("file_name")
    split, count = str(entry.take("split", "train")), entry.take("num_samples")
    formatting = str(entry.take("formatting", "alpaca"))
    _columns(entry, draft, formatting)
    draft.sort_out(entry, _NOT_NEEDED, _ADVICE)
    if count is not None:
        advice = (
            "the first rows are taken here, not a random choice of them, and none is repeated to reach "
            "the number"
        )
        draft.advise(entry, "num_samples", count, advice)
        limit = min(count, limit or count, key=lambda size: number(size) or 0)
    if hub or not file:
        return DataSet(str(hub or name), _part(split, limit), key)
    assert catalogue.folder is not None
    return DataSet(str(catalogue.folder / str(file)), _part(split, limit), key)


def _part(split: str, limit: Any) -> str:
    return f"{split}[:{limit}]" if limit is not None else split


def _columns(entry: Section, draft: StageDraft, formatting: str) -> None:
    expected = _COLUMNS.get(formatting, _COLUMNS["alpaca"])
    columns, tags = entry.take("columns"), entry.take("tags")
    for role, column in (columns if isinstance(columns, Mapping) else {}).items():
        named = expected.get(str(role))
        if column and column != named and not (named == "conversations" and column == "messages"):
            rename = f"rename the column {column} to {named}"
            what = rename if named else _OTHER_COLUMNS.get(str(role), _UNUSED)
            draft.advise(entry, f"columns.{role}", column, what)
    tags = tags if isinstance(tags, Mapping) else {}
    parts = (str(tags.get("role_tag", "from")), str(tags.get("content_tag", "value")))
    if formatting == "sharegpt" and parts not in _TAG_PAIRS:
        draft.advise(
            entry,
            "tags",
            dict(tags),
            "rename the fields of a message to role and content (or from and value)",
        )
    roles = {
        str(value) for tag, value in tags.items() if tag not in ("role_tag", "content_tag")
    } - _KNOWN_ROLES
    if roles:
        draft.advise(
            entry, "tags", dict(tags), f"rename these roles to user, assistant or system: {', '.join(roles)}"
        )
