"""What could hang a computer counts as a failure, in bounded time and memory, without a crash.

Every reader runs in one process of its own with a limit on memory, so that a crash of the interpreter would
be seen as such.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SECONDS_PER_DOCUMENT = 20.0
"""Of processor time: the machines that run tests are seldom idle. The slowest takes about 3."""
MEBIBYTES = 1024

PROGRAM = """
import json, resource, sys, time
sys.path.insert(0, {root!r})
resource.setrlimit(resource.RLIMIT_AS, ({limit}, {limit}))
from lib.evaluation.formats import Unparsable, read_document
N = 100_000
for name, code in json.load(sys.stdin):
    text = eval(code)
    started = time.process_time()
    try:
        read_document(text, name)
        fate = "read"
    except Unparsable as error:
        fate = error.reason
    print(json.dumps([name, code, fate, time.process_time() - started]), flush=True)
"""
REFUSED = {
    "json": [
        "'[' * 10_000 + ']' * 10_000",
        "'[' * 150 + ']' * 150",
        "'{\"a\":' * 10_000 + '1' + '}' * 10_000",
        "'[' * N",
        "'1' * 50_000",
        "'{\"a\": ' + '1' * 5_000 + '}'",
        "'[' + '1,' * 600_000 + '1]'",
    ],
    "yaml": [
        "'[' * 10_000 + ']' * 10_000",
        "'[' * N",
        "'{' * N",
        "'{a: ' * 25_000",
        "'[\\n' * 50_000",
        "'- ' * 50_000 + 'x'",
        "'? ' * 50_000",
        "''.join(' ' * i + 'a:\\n' for i in range(400))",
        "'a: &a [x,x]\\n' + ''.join(f'b{i}: &b{i} [*a,*a]\\n' for i in range(9))",
        "'a: &a [*a]'",
        "'a: 1' + ':59' * 33_000",
        "'a: 1' + ':59' * 33_000 + '.5'",
        "'a: 0x' + 'f' * 90_000",
        "'a: ' + '1' * 90_000",
        "'&a ' * 33_000",
        "'!a ' * 33_000",
        "'a: \"' + '\\\\n' * 45_000",
        "'a: b\\n' * 200_000",
        "'a ' * 49_000 + ': 1'",
    ],
    "toml": [
        "'a = ' + '[' * 10_000 + ']' * 10_000",
        "'a = ' + '{b=' * 10_000 + '1' + '}' * 10_000",
        "'.'.join('a' * 49_000) + ' = 1'",
        "'[' + '.'.join('a' * 49_000) + ']'",
        "'.'.join('a' * 150) + ' = 1'",
        "'a = 0x' + 'f' * 90_000",
        "'a = ' + '1' * 90_000",
        "'a = 1\\n' * 200_000",
    ],
    "xml": [
        "'<a>' * 10_000 + '</a>' * 10_000",
        "'<a>' * 33_000",
        "'<a>' * 150 + '</a>' * 150",
        "'<!DOCTYPE x [<!ENTITY e0 \"ha\">' + ''.join(f'<!ENTITY e{i} \"{f\"&e{i - 1};\" * 10}\">'"
        " for i in range(1, 30)) + ']><x>&e29;</x>'",
        "'<a>' + '<b/>' * 300_000 + '</a>'",
    ],
    "csv": ["',' * N", "'a,b\\n' + '\"' * 90_000", "'a,b\\n1,2\\n' * 100_000", "'a' * N"],
}
READ = {
    "json": ["'[' + '1,' * 49_000 + '1]'", "'{' + ','.join(f'\"{i}\": {i}' for i in range(7_000)) + '}'"],
    "yaml": [
        "'[' + '1,' * 49_000 + '1]'",
        "'[' + '[1],' * 24_000 + ']'",
        "'[' + ('[' * 90 + '1' + ']' * 90 + ',') * 500 + ']'",
        "'- a\\n' * 24_000",
        "'a: ' + 'b ' * 49_000",
        "'a: |\\n' + ' x\\n' * 33_000",
    ],
    "toml": [
        "'\\n'.join(f'a{i} = 1' for i in range(9_000))",
        "'\\n'.join('[' + '.'.join('a' * 90) + f'.b{i}]' for i in range(500))",
        "'a = [' + '#\\n' * 45_000 + ']'",
        "'a = \"\"\"' + 'x.\\n' * 30_000 + '\"\"\"'",
        "'[[a]]\\n' * 16_000",
    ],
    "xml": [
        "'<a>' + '<b/>' * 24_000 + '</a>'",
        "'<a ' + ' '.join(f'a{i}=\"1\"' for i in range(9_000)) + '/>'",
    ],
    "csv": ["'a,b\\n' + '1,2\\n' * 24_000", "','.join(f'a{i}' for i in range(7_000)) + '\\n' + ',' * 6_999"],
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_or_read_in_bounded_time_and_memory(name: str) -> None:
    cases = [(name, code) for code in (*REFUSED[name], *READ[name])]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(root=str(ROOT), limit=MEBIBYTES * 2**20)],
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr
    fates = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(format_name, code) for format_name, code, _, _ in fates] == cases
    for _, code, fate, seconds in fates:
        assert (fate == "read") is (code in READ[name]), (code, fate)
        assert seconds < SECONDS_PER_DOCUMENT, code
