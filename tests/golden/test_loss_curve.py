"""The loss curve of the embedded first stage, bit for bit: what changes it is a change of what is trained."""

import json
from pathlib import Path

import pytest
from curve import CODE_PATHS, SETTINGS, comparable, curve, golden_file, processor, trained


@pytest.mark.skipif(bool(comparable()), reason=comparable())
def test_the_curve_is_the_golden_one(tmp_path: Path) -> None:
    kind = processor()
    golden = json.loads(golden_file(kind).read_text(encoding="utf-8"))
    assert (golden["settings"], golden["environment"]) == (SETTINGS, CODE_PATHS), "record it anew"
    found = curve(trained(tmp_path))
    differing = [
        f"{name} {step} is {float.fromhex(now)}, was {float.fromhex(was)}"
        for name in ("losses", "grad_norms")
        for step, (was, now) in enumerate(zip(golden[name], found[name], strict=True), start=1)
        if was != now
    ]
    if differing and kind not in golden["processors"]:
        pytest.skip(f"no golden curve of {kind}, and it is another one: {differing[0]}")
    assert not differing, f"{len(differing)} numbers differ, the first: {differing[0]}"
    assert found["adapter_sha256"] == golden["adapter_sha256"]
