"""A Hub with one model, for one address: `python loopback_hub.py FOLDER ADDRESS LOG` serves `tiny/moe`.

It prints its port. The log gets a line for every file that was fetched: address of the client, file.
"""

import hashlib
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MODEL = "tiny/moe"


class Hub(BaseHTTPRequestHandler):
    folder: Path
    log: Path

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if "additional_chat_templates" in path:
            self.send_error(404)
        elif path.startswith(f"/api/models/{MODEL}/tree/"):
            tree = [
                {"type": "file", "path": path.name, "size": path.stat().st_size, "oid": path.name}
                for path in sorted(self.folder.iterdir())
            ]
            self._answer(json.dumps(tree).encode(), {})
        elif path.startswith(f"/api/models/{MODEL}"):
            files = [{"rfilename": path.name} for path in sorted(self.folder.iterdir())]
            self._answer(json.dumps({"id": MODEL, "sha": COMMIT, "siblings": files}).encode(), {})
        elif file := self._file():
            with self.log.open("a") as log:
                log.write(f"{self.client_address[0]} {file.name}\n")
            self._answer(file.read_bytes(), self._headers(file))
        else:
            self.send_error(404)

    def do_HEAD(self) -> None:
        if path := self._file():
            self._answer(path.read_bytes(), self._headers(path))
        else:
            self.send_error(404)

    def _file(self) -> Path | None:
        model, _, rest = self.path.lstrip("/").partition("/resolve/")
        path = self.folder / rest.rpartition("/")[2]
        return path if model == MODEL and path.is_file() else None

    def _headers(self, path: Path) -> dict[str, str]:
        etag = hashlib.sha256(path.read_bytes()).hexdigest()
        return {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "none"}

    def _answer(self, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(200)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """stderr stays empty."""


def main() -> None:
    Hub.folder, Hub.log = Path(sys.argv[1]), Path(sys.argv[3])
    server = ThreadingHTTPServer((sys.argv[2], 0), Hub)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
