"""Write the golden curve of the installed torch: `python tests/golden/record.py`. Not from a changed tree.

Where a deliberate change moves the curve of several kinds of processors, remove the old file first.
"""

import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from curve import CODE_PATHS, GOLDEN, ROOT, SETTINGS, curve, golden_file, processor, trained


def main() -> int:
    changed = git("status", "--porcelain")
    if changed:
        print(f"not recorded: the tree has changes that no commit names\n{changed}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        record = trained(Path(folder))
    found, kind = curve(record), processor()
    path, kinds = place(found, kind)
    made = {
        "processors": kinds,
        "torch": record["versions"]["torch"],
        "code": record["versions"]["code"],
        "libc": " ".join(platform.libc_ver()),
        "settings": SETTINGS,
        "environment": CODE_PATHS,
        **found,
    }
    path.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    print(f"{path.relative_to(ROOT)}: {len(made['losses'])} steps on {', '.join(kinds)}")
    return 0


def place(found: dict[str, Any], kind: str) -> tuple[Path, list[str]]:
    """The file to write, and the processors that it is known to be true of: the one for all, unless another
    kind has another curve there."""
    path = golden_file(kind)
    old = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"processors": []}
    if all(old.get(name) == value for name, value in found.items()):
        return path, sorted({*old["processors"], kind})
    if set(old["processors"]) <= {kind}:
        return path, [kind]
    return GOLDEN.with_name(f"{GOLDEN.stem}-{kind.replace(' ', '-')}.json"), [kind]


def git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
