"""Archives at ``hf://`` and ``gs://``: lists and rows are those of the same files here."""

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode, urlsplit
from urllib.request import urlopen

import pytest
from test_answer import fused
from test_archive_scoring import rows

from deepregions.archive.manifest import FileManifest
from deepregions.commands.cli import run

pytest.importorskip("fsspec", reason="the extra remote is not installed")


class Hub(http.server.BaseHTTPRequestHandler):
    """The little of the Hugging Face Hub that reading a data set needs; ``token`` opens it."""

    protocol_version = "HTTP/1.1"
    contents: dict[str, bytes]
    name, token, commit = "datasets/owner/name", "hf_secret", "c" * 40

    def log_message(self, *_: Any) -> None:
        """Says nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self._tell([each for path in form["paths"] for each in self._entries(path)])

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        repository = f"api/{self.name}"
        if self.headers.get("Authorization") != f"Bearer {self.token}":
            self._send(401, b"", {"X-Error-Code": "RepoNotFound"})
        elif path in (repository, f"{repository}/revision/main"):
            self._tell({"id": "owner/name", "sha": self.commit, "siblings": []})
        elif path.startswith(f"{repository}/tree/"):
            inside = path.split("/", 6)[6] if path.count("/") > 5 else ""
            names = {each.removeprefix(f"{inside}/").split("/")[0] for each in self._below(inside)}
            self._tell([each for n in names for each in self._entries(f"{inside}/{n}".strip("/"))])
        elif path.startswith(f"{self.name}/resolve/"):
            content = self.contents.get(path.split("/", 5)[5])
            found = {"ETag": '"e"', "X-Repo-Commit": self.commit, "Accept-Ranges": "bytes"}
            if content is None:
                self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
            else:
                self._send(200, content, found)
        else:
            self._send(404, b"", {"X-Error-Code": "RepoNotFound"})

    def _below(self, folder: str) -> list[str]:
        return [each for each in self.contents if not folder or each.startswith(f"{folder}/")]

    def _entries(self, path: str) -> list[dict[str, Any]]:
        last = {"id": self.commit, "title": "", "date": "2026-11-29T10:00:00.000Z"}
        entry = {"oid": "e" * 40, "path": path, "lastCommit": last}
        if path in self.contents:
            return [entry | {"type": "file", "size": len(self.contents[path])}]
        return [entry | {"type": "directory", "size": 0}] if self._below(path) else []

    def _tell(self, told: Any) -> None:
        self._send(200, json.dumps(told).encode(), {"Content-Type": "application/json"})

    def _send(self, code: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in (*headers.items(), ("Content-Length", str(len(body)))):
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def hub(contents: dict[str, bytes]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yields the address of the files, and what finds them there."""
    pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    Hub.contents = contents
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        place = f"http://127.0.0.1:{server.server_port}"
        yield f"hf://{Hub.name}", {"HF_ENDPOINT": place, "HF_TOKEN": Hub.token}
        server.shutdown()


@contextmanager
def bucket(contents: dict[str, bytes]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yields the address of the files, and what finds them there."""
    pytest.importorskip("gcsfs", reason="gcsfs, of the extra remote, is not installed")
    reason = "gcp-storage-emulator is not installed"
    emulator = pytest.importorskip("gcp_storage_emulator.server", reason=reason)
    with http.server.HTTPServer(("127.0.0.1", 0), Hub) as free:
        port = free.server_port
    server = emulator.create_server("127.0.0.1", port, in_memory=True, default_bucket="bucket")
    server.start()
    try:
        place = f"http://127.0.0.1:{port}"
        for name, content in contents.items():
            query = urlencode({"uploadType": "media", "name": name})
            urlopen(f"{place}/upload/storage/v1/b/bucket/o?{query}", content).close()
        yield "gs://bucket", {"STORAGE_EMULATOR_HOST": place}
    finally:
        server.stop()


@pytest.mark.parametrize("server", [hub, bucket])
def test_files_at_the_hub_or_in_a_bucket_score_as_those_here(
    server: Any, portrait: Path, tmp_path: Path
) -> None:
    content = portrait.read_bytes()
    contents = {
        "a.png": content,
        "b/deep/caf\xe9 1.png": content,  # a copy
        "b/none.jpg": b"no picture",
        "z.jpg": content + b"more",
    }
    for name, each in contents.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(each)
    fused(tmp_path / "bundle")
    options = ["--bundle", str(tmp_path / "bundle"), "--landmarks=dlib-hog"]
    here, there = tmp_path / "here.parquet", tmp_path / "there.parquet"
    assert run(["archive", "manifest", str(tmp_path / "in"), "--out", str(here)]) == 0
    assert run(["archive", "score", str(here), "--out", str(tmp_path / "here"), *options]) == 0
    with server(contents | {".hidden.jpg": b"0"}) as (address, environment):

        def command(*words: Any, **others: str) -> str:
            """Runs in a process of its own: where servers are is read at import."""
            line = [sys.executable, "-m", "deepregions", "archive", *map(str, words)]
            variables = {**os.environ, **environment, "HF_HOME": str(tmp_path), **others}
            done = subprocess.run(line, env=variables, capture_output=True, text=True, check=False)
            assert "hf_secret" not in done.stderr
            return done.stderr if done.returncode else ""

        assert not command("manifest", address, "--out", there)
        if server is hub:
            del Hub.contents["z.jpg"]  # since it was listed
        assert not command("score", there, "--out", tmp_path / "there", *options)
        denied = tmp_path / "denied"
        assert not command("score", there, "--out", denied, *options, HF_TOKEN="expired")
        gone = command("manifest", f"{address}/nothing", "--out", tmp_path / "no.parquet")
    (listed,) = FileManifest(there).chunks(9)
    (local,) = FileManifest(here).chunks(9)
    names = [path.removeprefix(f"{address}/") for path in listed["path"].to_pylist()]
    assert names == ["a.png", "b/deep/caf\xe9 1.png", "b/none.jpg", "z.jpg"]
    assert listed["size"].to_pylist() == local["size"].to_pylist()
    found = json.loads(json.dumps(rows(tmp_path / "there"), default=str).replace(address, "PLACE"))
    text = json.dumps(rows(tmp_path / "here"), default=str)
    expected = json.loads(text.replace(str(tmp_path / "in"), "PLACE"))
    for row in (*found, *expected):
        del row["mtime"]
    assert found[:3] == expected[:3]
    assert [row["status"] for row in found[:3]] == ["ok", "ok", "unreadable"]
    assert "nothing: no such file or folder" in gone
    if server is hub:
        assert found[3]["message"] == "PLACE/z.jpg: it is not there"
        assert {row["message"].partition(": ")[2] for row in rows(denied)} == {"access is denied"}
    else:
        assert [row["status"] for row in found] == ["ok", "ok", "unreadable", "ok"]
