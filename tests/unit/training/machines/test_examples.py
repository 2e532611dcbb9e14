"""The example scripts, as far as they need no machines: a shell reads them, pages say what they take."""

import re
import subprocess
from pathlib import Path

import pytest

PAGES = Path(__file__).parents[4] / "docs/several-machines"
SCRIPTS = {"torchrun.sh": "sh", "deepspeed.sh": "sh", "slurm.sbatch": "bash"}


@pytest.mark.parametrize(("name", "shell"), SCRIPTS.items())
def test_a_shell_reads_it(name: str, shell: str) -> None:
    subprocess.run([shell, "-n", PAGES / name], check=True)


@pytest.mark.parametrize("name", ["torchrun", "deepspeed"])
def test_its_page_explains_every_variable(name: str) -> None:
    script = (PAGES / f"{name}.sh").read_text(encoding="utf-8")
    variables = set(re.findall(r"\$\{?([A-Z]+)\b", script)) - {"ROOT", "BIN", "PATH"}
    page = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    assert variables
    assert [variable for variable in variables if f"`{variable}`" not in page] == []


def test_what_has_to_be_given_is_asked_for() -> None:
    asked = subprocess.run(["sh", PAGES / "torchrun.sh"], capture_output=True, text=True, check=False, env={})
    assert asked.returncode == 2
    assert "how many machines" in asked.stderr


def test_every_page_is_in_the_overview() -> None:
    overview = (PAGES / "README.md").read_text(encoding="utf-8")
    assert [
        path.name for path in PAGES.iterdir() if path.name != "README.md" and path.name not in overview
    ] == []
