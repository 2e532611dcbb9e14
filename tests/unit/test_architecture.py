"""The shape of the code: who may import whom, what stays free of heavy libraries, what files are called."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from lib.settings import list_stages, load_stage

ROOT = Path(__file__).parents[2]
# Each folder (and the two modules beside them) imports those to its left.
ORDER = (
    "files", "heartbeat", "settings", "failures", "data", "importing", "model", "training",
    "evaluation", "audit", "lineage", "planning", "exporting", "report", "tracking", "preflight",
    "inference", "commands",
)  # fmt: skip
HEAVY = {"torch", "transformers", "datasets", "peft", "trl", "mlflow", "deepspeed", "accelerate"}
LIGHT_FOLDERS = (
    "settings", "failures", "data", "importing", "audit", "lineage", "planning", "exporting", "report",
    "preflight", "commands",
)  # fmt: skip
JUNK_DRAWERS = ("utils", "common", "helpers", "manager", "util", "helper", "misc")
ENTRIES = [path for path in (ROOT / name for name in ("train.py", "infer.py", "export.py")) if path.exists()]
LIBRARY = sorted((ROOT / "lib").rglob("*.py"))
STAGE_FILES = sorted((ROOT / "stages").rglob("*.env"))


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in (*LIBRARY, *ENTRIES)}


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imports(path: Path, *, inside_functions: bool) -> Iterator[str]:
    """Modules that a file imports when it runs, absolute; those for type checkers are left out."""

    def walk(node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else str(node.module)
        elif is_type_checking(node):
            assert isinstance(node, ast.If)
            for child in node.orelse:
                yield from walk(child)
        elif inside_functions or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            for child in ast.iter_child_nodes(node):
                yield from walk(child)

    yield from walk(ast.parse(path.read_text(encoding="utf-8")))


def folder_of(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "lib" and len(parts) > 1 else None


def test_the_parser_sees_what_it_should(tmp_path: Path) -> None:
    path = tmp_path / "example.py"
    path.write_text(
        "import os\nfrom lib.data import prepare\n"
        "if TYPE_CHECKING:\n    import torch\nelse:\n    import json\n"
        "try:\n    import yaml\nexcept ImportError:\n    pass\n"
        "def f():\n    from peft import PeftModel\n"
        "class C:\n    import re\n"
    )
    module_level = ["os", "lib.data.prepare", "json", "yaml", "re"]
    assert list(imports(path, inside_functions=False)) == module_level
    assert set(imports(path, inside_functions=True)) == {*module_level, "peft"}


def test_every_folder_has_its_place_in_the_order() -> None:
    assert {folder for module in MODULES if (folder := folder_of(module))} == set(ORDER)


@pytest.mark.parametrize("path", LIBRARY, ids=module_name)
def test_imports_point_downward(path: Path) -> None:
    """Also those inside functions: a late import is still a dependency."""
    own = folder_of(module_name(path))
    if own is None:
        return
    for imported in imports(path, inside_functions=True):
        folder = folder_of(imported)
        assert folder is None or ORDER.index(folder) <= ORDER.index(own), f"{path}: imports {imported}"
        entries = {entry.stem for entry in ENTRIES}
        assert imported.split(".")[0] not in {"tests", "bench", *entries}, f"{path}: imports {imported}"


def test_there_are_no_circles_between_modules() -> None:
    graph = {
        name: {i for i in imports(path, inside_functions=True) if i in MODULES and i != name}
        for name, path in MODULES.items()
    }
    assert sum(map(len, graph.values())) > 50
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_sizing_stands_alone() -> None:
    """What a stage needs is known without anything that runs it."""
    for name in (name for name in MODULES if name.startswith("lib.training.sizing.")):
        others = (i for i in imports(MODULES[name], inside_functions=True) if i.startswith("lib.training."))
        assert all(imported.startswith("lib.training.sizing.") for imported in others), name


@pytest.mark.parametrize("folder", LIGHT_FOLDERS)
def test_planning_imports_nothing_heavy_at_module_level(folder: str) -> None:
    for path in sorted((ROOT / "lib" / folder).rglob("*.py")):
        heavy = HEAVY & {name.split(".")[0] for name in imports(path, inside_functions=False)}
        assert not heavy, f"{path}: {heavy}"


@pytest.mark.parametrize("path", ENTRIES, ids=module_name)
def test_entries_import_nothing_heavy_at_module_level(path: Path) -> None:
    assert not HEAVY & {name.split(".")[0] for name in imports(path, inside_functions=False)}


def python_files() -> list[Path]:
    """Every tracked or trackable source file: no build folders, no environments."""
    folders = ("lib", "tests", "data", "assets", "bench")
    found = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    return sorted([*ENTRIES, *found])


def test_names_explain_themselves() -> None:
    for path in python_files():
        assert path.stem not in JUNK_DRAWERS, path
        assert not path.stem.endswith(("_utils", "_helpers", "_manager", "_common")), path


def test_no_file_is_longer_than_300_lines() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in python_files()
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 300
    }
    # This one is a table of what stage files may say, value by value.
    long.pop("tests/unit/settings/test_stage.py", None)
    assert not long


@pytest.mark.parametrize("path", STAGE_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_shipped_stage_file_loads_strictly(path: Path) -> None:
    number = int(path.stem.removeprefix("stage"))
    settings = load_stage(path.parent, number, environ={})
    assert settings.strict, f"{path}: a shipped stage file sets SFT_STRICT=1"
    assert not [notice for notice in settings.notices if notice.startswith("[")]


def test_shipped_stages_are_numbered_without_gaps_and_share_base_and_output() -> None:
    assert STAGE_FILES
    for folder in {path.parent for path in STAGE_FILES}:
        numbers = list_stages(folder)
        assert all(later == earlier + 1 for earlier, later in pairwise(numbers)), folder
        assert numbers[0] == 1
        loaded = [load_stage(folder, number, environ={}) for number in numbers]
        assert len({(s.model.base_model, s.output) for s in loaded}) == 1, folder


@pytest.mark.parametrize(
    "arguments", [["--status"], ["--stage", "all", "--plan"], ["--stage", "1", "--plan", "--json"]]
)
def test_status_and_plan_load_no_torch(arguments: list[str], curriculum: Any) -> None:
    """The real script in its own process; what it has loaded is read when it is done."""
    curriculum.stage(1)
    curriculum.stage(2)
    code = (
        "import runpy, sys\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "try:\n"
        f"    runpy.run_path({str(ROOT / 'train.py')!r}, run_name='__main__')\n"
        "except SystemExit as stop:\n"
        f"    loaded = sorted({sorted(HEAVY)!r} & sys.modules.keys())\n"
        "    print('code', stop.code, 'loaded', loaded, file=sys.stderr)\n"
    ).replace(repr(sorted(HEAVY)), f"set({sorted(HEAVY)!r})")
    command = [sys.executable, "-c", code, *arguments, "--stages-dir", str(curriculum.stages)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=curriculum.root, check=False)
    assert done.stderr.strip() == "code 0 loaded []"
    assert "1" in done.stdout
    assert sorted(path.name for path in curriculum.root.iterdir()) == ["base", "rows.jsonl", "stages"]
