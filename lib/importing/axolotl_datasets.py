"""Axolotl's `datasets` and `test_datasets` into data sets of a stage."""

from collections.abc import Mapping
from typing import Any

from lib.importing.draft import StageDraft, as_list
from lib.importing.foreign import Section
from lib.importing.mix import DataSet, set_mix

ALPACA_STYLE, TEXT_STYLE = "alpaca", "text"
_ROWS = (
    "rename the columns: rows here have messages, conversations, prompt/completion or "
    "instruction/input/output"
)
_TABLE_TYPES = ("json", "csv", "parquet", "arrow", "text")
_MESSAGE_COLUMNS = ("messages", "conversations")
_MESSAGE_PARTS = {("role", "content"), ("from", "value")}
_INSTRUCTION_COLUMNS = {"field_instruction": "instruction", "field_input": "input", "field_output": "output",
                        "field_system": "system"}  # fmt: skip
_NOT_NEEDED = (
    ("ds_type", "told by the ending of the file"),
    ("preprocess_shards", "rows are prepared at once"),
    ("trust_remote_code", "code from the Hub is never run"),
)
_ADVICE = (
    ("shards shards_idx", 'a part of the rows is "split": "train[:10%]" in SFT_DATASET_MIX'),
    ("name revision", "the default configuration at the newest version is loaded: save another as a file"),
    ("roles_to_train message_field_training*", "answers of the assistant are learned, all of them"),
    ("train_on_eos train_on_eot", "the end of every learned answer is learned"),
    ("roles", "usual names are known (user/human, assistant/gpt/model, tool): rename others"),
    ("drop_system_message", "delete the system messages in the file"),
    ("split_thinking field_thinking template_thinking*", "write the reasoning into the answer"),
    ("chat_template chat_template_jinja", "all data sets of a stage share one template: SFT_CHAT_TEMPLATE"),
    ("field_tools", "tool calls are not trained"),
    ("format no_input_format system_*", "a layout of your own is a jinja file: SFT_CHAT_TEMPLATE"),
    ("field_*", _ROWS),
    ("weight* sampling*", 'a weight is "weight" in SFT_DATASET_MIX; SFT_MIX_WEIGHTS says what it means'),
)  # fmt: skip


def training_sets(section: Section, draft: StageDraft) -> tuple[set[str], Any]:
    """Sets the mix; the prompt styles of its data sets and the chat template that one of them names."""
    entries, styles, template = section.take("datasets"), set[str](), None
    if not isinstance(entries, list) or not entries:
        draft.refuse(section, "datasets", entries, "a list with at least one data set")
        return styles, None
    found: list[DataSet] = []
    for position, entry in enumerate(entries):
        if not isinstance(entry, Mapping):
            draft.refuse(section, f"datasets[{position}]", entry, "a mapping with a path")
            continue
        part = Section(entry, f"datasets[{position}].")
        found += _data_sets(part, draft)
        styles.add(_style(part, draft))
        template = template or part.take("chat_template")  # a second one is left over, and said
        draft.sort_out(part, _NOT_NEEDED, _ADVICE)
    set_mix(draft, found, "datasets")
    return styles, template


def evaluation_set(section: Section, draft: StageDraft) -> bool:
    """Whether `test_datasets` names one, which becomes the evaluation set."""
    entries = section.take("test_datasets")
    if not isinstance(entries, list) or not entries or not isinstance(entries[0], Mapping):
        return False
    part = Section(entries[0], "test_datasets[0].")
    found = _data_sets(part, draft)
    differs = "its loss, and answers that are generated and scored"
    if found and found[0].split != "train":
        differs += f"; split train is read here, not {found[0].split}: save that split as a file"
    if found:
        draft.set("SFT_GEN_EVAL_DATASET_ID", found[0].id, found[0].source, differs)
    _style(part, draft)
    draft.sort_out(part, _NOT_NEEDED, _ADVICE)
    if len(entries) > 1 or len(found) > 1:
        advice = "one evaluation set a stage: put the files into one folder or file"
        draft.advise(section, "test_datasets", entries, advice)
    return bool(found)


def _data_sets(part: Section, draft: StageDraft) -> list[DataSet]:
    path, files = part.take("path"), part.take("data_files")
    split = str(part.take("split", "train"))
    names = as_list(files)
    if not isinstance(path, str) or not path.strip():
        draft.refuse(part, "path", path, "a Hub id or a path")
        return []
    if names and path in _TABLE_TYPES:
        return [DataSet(str(name), split, part.name("data_files")) for name in names]
    if names:
        draft.advise(
            part, "data_files", names, "download these files and name them, each as an id of SFT_DATASET_MIX"
        )
    if "://" in path:
        draft.advise(
            part, "path", path, "only local paths and Hub ids are read: copy the file to this machine"
        )
    return [DataSet(path, split, part.name("path"))]


def _style(part: Section, draft: StageDraft) -> str:
    """Which layout the rows had there; here they are told by their columns, with one template for all."""
    kind = part.take("type")
    if isinstance(kind, Mapping):
        own = Section(kind, part.name("type."))
        for key, column in _INSTRUCTION_COLUMNS.items():
            if (given := own.take(key)) and given != column:
                draft.advise(own, key, given, f"rename the column {given} to {column}")
        draft.sort_out(own, (), _ADVICE)
        return "own"
    if kind == "alpaca":
        return ALPACA_STYLE
    if kind == "completion":
        column = part.take("field", "text")
        if column != "text":
            draft.advise(part, "field", column, f"rename the column {column} to text")
        return TEXT_STYLE
    if kind not in (None, "chat_template") and not str(kind).startswith("sharegpt"):
        advice = (
            "this layout is not here: rows are read by their columns and written with the stage's chat "
            "template"
        )
        draft.advise(part, "type", kind, advice)
    _message_columns(part, draft)
    return "conversation"


def _message_columns(part: Section, draft: StageDraft) -> None:
    column = part.take("field_messages", "messages")
    if column not in _MESSAGE_COLUMNS:
        draft.advise(part, "field_messages", column, f"rename the column {column} to messages")
    mapping = part.take("message_property_mappings")
    role, content = part.take("message_field_role"), part.take("message_field_content")
    if not isinstance(mapping, Mapping):
        mapping = {"role": role or "role", "content": content or "content"}
    names = (str(mapping.get("role", "role")), str(mapping.get("content", "content")))
    if names not in _MESSAGE_PARTS or set(mapping) - {"role", "content"}:
        advice = "rename the fields of a message to role and content (or from and value)"
        draft.advise(part, "message_property_mappings", dict(mapping), advice)
    roles = part.take("roles_to_train")
    if roles is not None and not {str(name) for name in as_list(roles)} <= {"assistant", "gpt", "model"}:
        draft.advise(part, "roles_to_train", roles, "answers of the assistant are learned, all of them")
    ends = part.take("train_on_eos")
    if ends not in (None, "turn"):
        draft.advise(part, "train_on_eos", ends, "the end of every learned answer is learned")
