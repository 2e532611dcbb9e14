"""`--import-config` as a user runs it: a file that loads, a report, and exit codes."""

from pathlib import Path

from train_command import TrainCommand

from lib.settings import load_stage

CONFIG = """
model_name_or_path: Qwen/Qwen3-4B-Instruct-2507
finetuning_type: lora
lora_target: all
dataset: 変換
template: qwen3
cutoff_len: 1024
output_dir: saves/構造化
lora_rank: 8
warmup_steps: 20
use_dora: true
"""


def test_a_configuration_becomes_a_stage_once(tmp_path: Path) -> None:
    config, train = tmp_path / "設定.yaml", TrainCommand(tmp_path)
    config.write_text(CONFIG, encoding="utf-8")
    said = train.done("--import-config", config)
    written = tmp_path / "stages-imported/stage1.env"
    settings = load_stage(written.parent, 1, environ={})
    assert settings.lora.target_modules == ("all-linear",)
    assert str(settings.output) == "saves/構造化"
    for part in ("all-linear", "20 ÷", "use_dora", "変換", "--stages-dir stages-imported --stage 1 --plan"):
        assert part in said
    before = written.read_bytes()
    again = train("--import-config", config)
    assert again.returncode == 2
    assert "nothing is overwritten" in again.stderr
    assert written.read_bytes() == before
    train.done("--import-config", config, "--to", "elsewhere")
    assert (tmp_path / "elsewhere/stage1.env").read_bytes() == before


def test_what_is_refused_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG + "stage: ppo\nlearning_rate: fast\n", encoding="utf-8")
    result = TrainCommand(tmp_path)("--import-config", "config.yaml")
    assert result.returncode == 2
    for part in ("config.yaml: stage", "learning_rate: fast", "remedy:"):
        assert part in result.stderr
    assert "Traceback" not in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]
