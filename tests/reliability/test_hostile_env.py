"""Generated and damaged env files: each loads and can be planned, or is refused with key or line."""

import contextlib
import io
import json
import random
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile_env import FORMS, SOUND, VALUES, damaged, env_file, noise
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from refusals import assert_helpful, in_time
from tiny_curriculum import Curriculum, rows, texts
from tiny_model import VOCABULARY, make_tokenizer

from lib.commands.arguments import parse
from lib.commands.show import show_plans
from lib.settings import InputError, load_stage
from lib.settings.stage import KEYS
from lib.training.sizing.world import World

CONFIG = {
    "model_type": "qwen3_moe",
    "hidden_size": 64,
    "intermediate_size": 96,
    "moe_intermediate_size": 32,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_experts": 4,
    "vocab_size": VOCABULARY,
}
PLAN = ("--stage", "1", "--plan", "--show-mask", "1")
BYTES_SECONDS = 60.0


@pytest.fixture
def curriculum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Curriculum]:
    """A working folder with a base (no weights) and rows, under the names that the files know."""
    make_tokenizer(tmp_path / "base", texts())
    (tmp_path / "base" / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "stages").mkdir()
    made = Curriculum(tmp_path)
    made.write_rows("rows.jsonl", rows(20))
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Python's `re` about odd patterns
        yield made


def outcome(curriculum: Curriculum, content: bytes, *, planned: bool) -> str:
    """`refused`, `loaded` or, where that is asked for, `planned`. Anything else is raised."""
    curriculum.stage_file(1).write_bytes(content)
    try:
        with in_time():
            load_stage(Path("stages"), 1, environ={})
            if not planned:
                return "loaded"
            options = parse(PLAN, "")
            with contextlib.redirect_stdout(io.StringIO()):
                show_plans(options, [1], World(1 + len(content) % 2, 0))
            return "planned"
    except InputError as error:
        assert_helpful(error)
        return "refused"


def outcomes(curriculum: Curriculum, seeds: range, *, planned_of: int) -> Counter[str]:
    """Of the files of these seeds; one of `planned_of` is planned if it loads."""
    found: Counter[str] = Counter()
    for seed in seeds:
        try:
            found[outcome(curriculum, env_file(seed), planned=seed % planned_of == 0)] += 1
        except BaseException as error:
            error.add_note(f"env_file({seed})")
            raise
    assert sorted(path.name for path in curriculum.folder.iterdir()) == ["base", "rows.jsonl", "stages"]
    return found


def test_a_share_of_generated_files(curriculum: Curriculum) -> None:
    found = outcomes(curriculum, range(400), planned_of=4)
    assert min(found["refused"], found["loaded"], found["planned"]) > 10, found


@pytest.mark.slow
def test_ten_thousand_generated_files(curriculum: Curriculum) -> None:
    """About five minutes: every file that loads is planned too."""
    found = outcomes(curriculum, range(10_000, 20_000), planned_of=1)
    print(dict(found))
    assert min(found["refused"], found["planned"]) > 1000, found


@pytest.mark.slow
def test_damaged_bytes_for_a_minute(curriculum: Curriculum) -> None:
    """Shipped files with bytes changed, and plain noise: as many as a minute allows."""
    rng, started, count = random.Random(1), time.monotonic(), Counter[str]()
    while time.monotonic() - started < BYTES_SECONDS:
        content = rng.choice((damaged, noise))(rng)
        count[outcome(curriculum, content, planned=False)] += 1
    print(dict(count))
    assert sum(count.values()) > 1000


SOME_KEYS = st.dictionaries(
    st.sampled_from(sorted(KEYS)),
    st.sampled_from(VALUES) | st.text(max_size=20) | st.floats().map(repr) | st.integers().map(str),
    max_size=6,
)


@settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(keys=SOME_KEYS, form=st.sampled_from(FORMS))
def test_any_keys_with_any_values(keys: dict[str, str], form: str, curriculum: Curriculum) -> None:
    text = "".join(form.format(key=key, value=value) for key, value in {**SOUND, **keys}.items())
    outcome(curriculum, text.encode("utf-8", "surrogatepass"), planned=False)


@pytest.mark.parametrize("seed", [11, 12, 13])
def test_some_through_the_real_command(seed: int, curriculum: Curriculum) -> None:
    """What the command says is what was found above: exit code 0 or 2, never a traceback."""
    content = env_file(seed)
    expected = outcome(curriculum, content, planned=True)
    result = curriculum.command(*PLAN)
    assert result.returncode == {"planned": 0, "refused": 2}[expected], result.stderr
    assert "Traceback" not in result.stdout + result.stderr
