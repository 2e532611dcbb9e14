"""Python loads this by itself at its start. With this folder in PYTHONPATH a process, and every Python
process that it starts, writes down what could do harm, a line of JSON each, in the file AUDIT_LOG.

Connections beyond this machine are refused as well, so that a test that finds one stays without network.
What C code does by itself (SQLite, Rust's safetensors) is not seen here: snapshots of the folders show that.
"""

import json
import os
import sys

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {
    "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "shutil.rmtree",
}  # fmt: skip
STARTS = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "pty.spawn"}
TALKS = {"socket.connect", "socket.sendto", "socket.bind"}
NAMES = {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"}
LOOPBACK = ("127.", "::1", "localhost")
CANARY = "canary"


def log(event, *details):
    line = json.dumps([event, *details], default=str, ensure_ascii=True)
    os.write(LOG, line.encode() + b"\n")


def is_local(address):
    return isinstance(address, (str, bytes)) or not address or str(address[0]).startswith(LOOPBACK)


def hook(event, arguments):
    if event == "open":
        path, _, flags = arguments
        if isinstance(path, (str, bytes, os.PathLike)) and isinstance(flags, int) and flags & WRITES:
            log("write", os.path.abspath(os.fsdecode(path)))
    elif event in CHANGES:
        paths = [a for a in arguments if isinstance(a, (str, bytes, os.PathLike))]
        in_open_folder = any(isinstance(a, int) and a > 2 for a in arguments[1:]) and event != "os.mkdir"
        if not in_open_folder:  # the names are relative to that; shutil.rmtree has said which it is
            log("change", *(os.path.abspath(os.fsdecode(path)) for path in paths))
    elif event in STARTS:
        log("start", arguments[0], arguments[1] if len(arguments) > 1 else [])
    elif event in TALKS:
        log("talk", arguments[1])
        if event != "socket.bind" and not is_local(arguments[1]):
            raise ConnectionRefusedError(f"refused by the test: {arguments[1]}")
    elif event in NAMES:
        if not str(arguments[0] or "").startswith(LOOPBACK):
            log("name", arguments[0])
    elif event == "pickle.find_class":
        log("pickle", *arguments)
    elif event == "import" and CANARY in arguments[0]:
        log("import", arguments[0])


if "AUDIT_LOG" in os.environ:
    LOG = os.open(os.environ["AUDIT_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    sys.addaudithook(hook)
