import pickle

import pytest

from lib.settings.errors import InputError, Problem, Problems, without_secrets


def test_render_has_every_part_on_its_own_line() -> None:
    problem = Problem("stages/stage1.env:3", "SFT_LR", "fast", "a number, above 0", "Correct SFT_LR.")
    assert problem.render().splitlines() == [
        "stages/stage1.env:3: SFT_LR",
        "    given:    fast",
        "    expected: a number, above 0",
        "    remedy:   Correct SFT_LR.",
    ]


def test_render_leaves_out_what_is_empty() -> None:
    assert Problem("data/x.jsonl", expected="a row").render() == "data/x.jsonl\n    expected: a row"


def test_long_values_are_shortened_to_200_characters() -> None:
    given = Problem("f:1", "K", "x" * 999).render().splitlines()[1]
    assert given == f"    given:    {'x' * 200}… (999 characters)"


def test_values_stay_on_one_line_and_cannot_control_the_terminal() -> None:
    rendered = Problem("f:1", "K", "a\n  b\x1b[2J日本\ud800").render()
    assert rendered.splitlines()[1] == "    given:    a b\\x1b[2J日本\\ud800"


def test_passwords_in_addresses_are_hidden() -> None:
    rendered = Problem("f:1", "MLFLOW_TRACKING_URI", "https://me:hunter2@host/x").render()
    assert "https://me:***@host/x" in rendered


def test_secrets_of_the_environment_are_hidden_and_folders_are_none() -> None:
    environ = {"MY_PASSPHRASE": "open sesame", "PWD": "/home/me", "OLDPWD": "/home/", "API_KEY": "short"}
    assert without_secrets("open sesame in /home/me: short", environ) == "*** in /home/me: short"


def test_input_error_joins_all_problems_and_survives_pickling() -> None:
    error = InputError([Problem("a", "A"), Problem("b", "B")])
    assert str(error) == "a: A\nb: B"
    assert pickle.loads(pickle.dumps(error)).problems == error.problems


def test_subclasses_are_built_by_of() -> None:
    class RowError(InputError):
        pass

    assert isinstance(RowError.of(where="row 3", expected="text"), RowError)


def test_problems_raise_once_with_everything() -> None:
    problems = Problems()
    problems.raise_if_any()
    problems.add("f:1", key="A")
    problems.extend([Problem("f:2", "B")])
    assert (len(problems), problems.about("B"), problems.about("C")) == (2, True, False)
    with pytest.raises(InputError) as caught:
        problems.raise_if_any()
    assert [problem.key for problem in caught.value.problems] == ["A", "B"]
