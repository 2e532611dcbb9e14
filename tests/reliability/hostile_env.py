"""Env files that nobody would write: from keys and values, from damaged shipped files, from plain noise."""

import random
import re
from collections.abc import Callable
from pathlib import Path

from lib.settings.stage import KEYS, SPELLINGS

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = [path.read_bytes() for path in sorted((ROOT / "stages").rglob("*.env"))]
FORMS = (
    "{key}={value}\n",
    "{key}='{value}'\n",
    '{key}="{value}"\n',
    "export {key}={value}  # a comment\n",
    "{key} = {value}\r\n",
    "  {key}='{value}\n",
    "{key}\n",
    "{key}={value}#{value}\n",
    "\ufeff{key}={value}\r",
    "{key}:{value}\n",
    "={value}\n",
    "{key}='{value}'{value}\n",
)
VALUES = (
    "", "0", "1", "-1", "2", "16", "0.5", "1e-4", "1e999", "nan", "inf", "-0.0", "9" * 30, "9" * 5000,
    "0x10", "１", "1_000", "true", "auto", "none", "bf16", "nf4", "merge", "stack", "length", "share", "cap",
    "rows.jsonl", "base", "out/lora", "/", ".", "..", "~", "~nobody/x", "../../etc/passwd", "rows.jsonl,base",
    "a,,b", ",", "[", "[[]]", "{}", "[1]", '[{"id": "rows.jsonl"}]',
    '[{"id": "rows.jsonl", "weight": 2.5, "split": "train[:5]"}]', '[{"id": 1, "x": null}]',
    '[{"id": "rows.jsonl", "weight": 1e308}, {"id": "rows.jsonl", "weight": 1e-308}]',
    '[{"id": "rows.jsonl", "split": "train[99999999999999999999%:]"}]', '{"json": 3.0}', '{"json": 1e300}',
    '{"json": -1}', '{"a": {"a": 1}}', "[" * 2000, '{"a":' * 2000, '"\\ud800"', "\ud7ff\ue000", "\x00",
    "\x1b[2J", "$(touch fired)", "`touch fired`", "${HF_TOKEN}", "%s%n", "{{ 7 * 7 }}", "日本語", "'", '"',
    "\\", "\\'", "\n", "#", "(a+)+$", "(?P<x>", "easy|hard", "a|b,c|d", "a|a", "chatml", "chatlm",
    "base/chat_template.jinja", "gen_leaf_f1", "gen_leaf_f1/json", "eval_loss", "q_proj", "all-linear",
    "q_proj,all-linear", "x" * 10_000,
)  # fmt: skip
NUMBERS = (
    "0",
    "1",
    "2",
    "3",
    "7",
    "64",
    "1000",
    "100000",
    "1000000000000",
    "9" * 25,
    "0.1",
    "0.999",
    "1e300",
)
SOUND = {
    "SFT_BASE_MODEL": "base",
    "SFT_OUT_LORA_DIR": "out/lora",
    "SFT_DATASET_ID": "rows.jsonl",
}


def from_keys(rng: random.Random) -> bytes:
    """Up to a dozen keys, some misspelt, in forms that parse and that do not; half the time on top of what a
    stage needs."""
    lines = [f"{key}='{value}'\n" for key, value in SOUND.items()] if rng.random() < 0.7 else []
    for _ in range(rng.randrange(12)):
        form = FORMS[1] if rng.random() < 0.8 else rng.choice(FORMS)
        key = some_key(rng)
        lines.append(form.format(key=key, value=some_value(rng, key)))
    rng.shuffle(lines)
    return "".join(lines).encode("utf-8", "surrogatepass")


def nearly_sound(rng: random.Random) -> bytes:
    """What a stage needs, and a few keys with values that they may take: most of these load."""
    values = dict(SOUND)
    for key in rng.sample([*KEYS], rng.randrange(1, 5)):
        values[key] = some_value(rng, key)
    return "".join(f"{key}='{value}'\n" for key, value in values.items()).encode("utf-8", "surrogatepass")


def some_key(rng: random.Random) -> str:
    key = rng.choice([*KEYS, *SPELLINGS])
    if rng.random() < 0.1:
        place = rng.randrange(len(key))
        key = key[:place] + rng.choice(["", "x", "_", "é", " ", "="]) + key[place + 1 :]
    return rng.choice(["HF_TOKEN", "PATH", "sft_lr", key]) if rng.random() < 0.05 else key


def some_value(rng: random.Random, key: str) -> str:
    """Mostly one that the key may take, as its own description words it."""
    known = KEYS.get(SPELLINGS.get(key, ""))
    if known is None or rng.random() < 0.2:
        return rng.choice(VALUES)
    fitting = [*re.findall(r"[\w.-]+", known.reader.allowed), known.default or "", *NUMBERS]
    for value in rng.sample(fitting, len(fitting)):
        if accepted(known.reader.parse, value):
            return value
    return rng.choice(VALUES)


def accepted(parse: Callable[[str], object], value: str) -> bool:
    try:
        parse(value)
    except ValueError:
        return False
    return True


def damaged(rng: random.Random) -> bytes:
    """A shipped file after one to eight changes of bytes."""
    content = bytearray(rng.choice(SHIPPED))
    for _ in range(rng.randrange(1, 9)):
        rng.choice(CHANGES)(rng, content)
    return bytes(content)


def noise(rng: random.Random) -> bytes:
    """Random bytes, of all kinds or of those that mean something in an env file."""
    if rng.random() < 0.5:
        return rng.randbytes(rng.randrange(400))
    alphabet = b"SFT_LR=\n\r'\"\\#$ {}[]:,ae0\t\xe3\x00"
    return bytes(rng.choices(alphabet, k=rng.randrange(400)))


def _flip(rng: random.Random, content: bytearray) -> None:
    if content:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)


def _cut(rng: random.Random, content: bytearray) -> None:
    start = rng.randrange(len(content) + 1)
    del content[start : start + rng.randrange(30)]


def _insert(rng: random.Random, content: bytearray) -> None:
    start = rng.randrange(len(content) + 1)
    content[start:start] = rng.choice([rng.choice(VALUES).encode("utf-8", "surrogatepass"), rng.randbytes(8)])


def _double(rng: random.Random, content: bytearray) -> None:
    start = rng.randrange(len(content) + 1)
    content[start:start] = content[start : start + rng.randrange(200)]


def _splice(rng: random.Random, content: bytearray) -> None:
    other = rng.choice(SHIPPED)
    content[rng.randrange(len(content) + 1) :] = other[rng.randrange(len(other)) :]


Change = Callable[[random.Random, bytearray], None]
CHANGES: tuple[Change, ...] = (_flip, _cut, _insert, _double, _splice)
KINDS: tuple[Callable[[random.Random], bytes], ...] = (from_keys, nearly_sound, damaged, noise)


def env_file(seed: int) -> bytes:
    """The same for the same seed."""
    rng = random.Random(seed)
    return rng.choices(KINDS, weights=(3, 3, 3, 1))[0](rng)
