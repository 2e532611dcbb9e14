"""Files as users write them, and files that nobody would."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.settings import InputError, MixEntry, list_stages, load_stage
from lib.settings.stage import KEYS

USER_STAGES = Path(__file__).parents[4] / "shared" / "data" / "stage_files"


@pytest.mark.skipif(not USER_STAGES.is_dir(), reason="the users' stage files are not on this machine")
def test_the_users_own_stage_files_load_unchanged() -> None:
    assert list_stages(USER_STAGES) == (1, 2, 3)
    one, two, three = (load_stage(USER_STAGES, stage, environ={}) for stage in (1, 2, 3))
    assert (one.notices, two.notices, three.notices) == ((), (), ())
    assert one.data.mix == (MixEntry("u-10bei/structured_data_with_cot_dataset_512_v2", None),)
    assert (one.training.epochs, one.training.max_steps, one.training.lr) == (100.0, 100, 1.6e-5)
    assert one.training.early_stopping_patience == 5
    assert one.output == Path("~/workspace/output/lora_structeval_t_qwen3_4b").expanduser()
    assert [(entry.id, entry.weight) for entry in two.data.mix[1:]] == [("additional_toml_dataset", 2.0)]
    assert (two.data.upsample_rules, two.data.use_upsampling) == ({"toml": 3.0, "csv": 1.5}, True)
    assert two.tracking.experiment == "my-custom-experiment-stage2"
    assert (three.lora.rank, three.lora.alpha, three.data.max_seq_len) == (8, 32.0, 1024)
    assert [entry.weight for entry in three.data.mix] == [1.0, 1.5]


VALUES = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=12),
    st.sampled_from(
        ["1", "0", "-1", "1e999", "nan", "[", "[[]]", '[{"id": 1}]', "~x", "{}", "a,,b", '{"a": "b"}']
    ),
)


@settings(max_examples=150, deadline=None)
@given(
    file=VALUES, environ=st.dictionaries(st.sampled_from(sorted(KEYS)), VALUES), overrides=st.lists(VALUES)
)
def test_any_input_is_loaded_or_refused(
    tmp_path_factory: pytest.TempPathFactory, file: str, environ: dict[str, str], overrides: list[str]
) -> None:
    folder = tmp_path_factory.getbasetemp()
    (folder / "stage1.env").write_text(
        f"SFT_BASE_MODEL=b\nSFT_DATASET_ID=d\n{file}\n", errors="surrogatepass"
    )
    # Any other error than InputError would fail the test.
    with contextlib.suppress(InputError):
        loaded = load_stage(folder, 1, overrides=overrides, environ=environ)
        assert loaded.model.base_model
        assert loaded.data.mix


@settings(max_examples=50, deadline=None)
@given(environ=st.dictionaries(st.sampled_from(sorted(KEYS)), VALUES))
def test_any_refusal_can_be_printed_and_says_what_to_do(
    tmp_path_factory: pytest.TempPathFactory, environ: dict[str, str]
) -> None:
    folder = tmp_path_factory.getbasetemp()
    (folder / "stage1.env").write_text("SFT_NO_SUCH_KEY=1\n")
    with pytest.raises(InputError) as caught:
        load_stage(folder, 1, environ=environ)
    assert all(problem.expected and problem.remedy for problem in caught.value.problems)
    assert str(caught.value).encode()
