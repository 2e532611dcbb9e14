"""The loss curve of the embedded first stage, bit for bit: what changes it is a change of what is trained."""

import json
from pathlib import Path

import pytest
from curve import CODE_PATHS, GOLDEN, SETTINGS, comparable, curve, trained


@pytest.mark.skipif(bool(comparable()), reason=comparable())
def test_the_curve_is_the_golden_one(tmp_path: Path) -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert (golden["settings"], golden["environment"]) == (SETTINGS, CODE_PATHS), "record it anew"
    found = curve(trained(tmp_path))
    for name in ("losses", "grad_norms"):
        differing = [
            (step, float.fromhex(was), float.fromhex(now))
            for step, (was, now) in enumerate(zip(golden[name], found[name], strict=True), start=1)
            if was != now
        ]
        assert not differing, f"{len(differing)} {name} differ; the first: step, golden, now = {differing[0]}"
    assert found["adapter_sha256"] == golden["adapter_sha256"]
