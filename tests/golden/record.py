"""Write the golden curve of the installed torch: `python tests/golden/record.py`. Not from a changed tree."""

import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from curve import CODE_PATHS, GOLDEN, ROOT, SETTINGS, curve, trained


def main() -> int:
    changed = git("status", "--porcelain")
    if changed:
        print(f"not recorded: the tree has changes that no commit names\n{changed}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        record = trained(Path(folder))
    made = {
        "torch": record["versions"]["torch"],
        "code": record["versions"]["code"],
        "libc": " ".join(platform.libc_ver()),
        "settings": SETTINGS,
        "environment": CODE_PATHS,
        **curve(record),
    }
    GOLDEN.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    print(f"{GOLDEN.relative_to(ROOT)}: {len(made['losses'])} steps, adapter {made['adapter_sha256'][:12]}")
    return 0


def git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
