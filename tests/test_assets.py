"""Assets: found, fetched from a real server on this machine, verified, or refused with a hint."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from deepregions import assets
from deepregions.assets import Asset, cache_dir, fetch, find
from deepregions.errors import AssetError

CONTENT = bytes(range(256)) * 2000


class Server(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/missing":
            self.send_error(404)
            return
        body = CONTENT[::-1] if self.path == "/wrong" else CONTENT
        self.send_response(200)
        if self.path != "/endless":
            self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        if self.path == "/silent":
            self.server.released.wait(20)  # type: ignore[attr-defined]
        elif self.path == "/endless":
            while not self.server.released.is_set():  # type: ignore[attr-defined]
                self.wfile.write(body)
        else:
            self.wfile.write(body[:1000] if self.path == "/truncated" else body)

    def handle(self) -> None:
        with contextlib.suppress(OSError):  # the client left, as it should
            super().handle()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        running.released = threading.Event()  # type: ignore[attr-defined]
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.released.set()  # type: ignore[attr-defined]
        running.shutdown()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "a cache"
    monkeypatch.setenv("DEEPREGIONS_CACHE", str(folder))
    monkeypatch.delenv("DEEPREGIONS_OFFLINE", raising=False)
    return folder


def asset(url: str) -> Asset:
    return Asset("model.bin", url, hashlib.sha256(CONTENT).hexdigest(), "CC0-1.0", "the tests")


def test_fetches_verifies_and_then_needs_no_server(server: str, cache: Path) -> None:
    path = fetch(asset(f"{server}/right"))
    assert path == cache / "model.bin"
    assert path.read_bytes() == CONTENT
    assert fetch(asset(f"{server}/missing")) == path
    assert find(asset("http://nowhere.invalid/")) == path


@pytest.mark.parametrize(
    ("page", "reason"),
    [("missing", "404"), ("wrong", "SHA-256"), ("truncated", "SHA-256|IncompleteRead")],
)
def test_what_is_not_the_file_is_refused_and_leaves_nothing(
    server: str, cache: Path, page: str, reason: str
) -> None:
    with pytest.raises(AssetError, match=reason):
        fetch(asset(f"{server}/{page}"))
    assert list(cache.iterdir()) == []


def test_a_server_that_says_nothing_or_never_stops(
    server: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(AssetError, match="timed out"):
        fetch(asset(f"{server}/silent"), timeout=0.2)
    monkeypatch.setattr(assets, "MAX_BYTES", 1 << 20)
    with pytest.raises(AssetError, match="more than 1048576 bytes"):
        fetch(asset(f"{server}/endless"))
    assert list(cache.iterdir()) == []


def test_the_error_names_file_url_and_variable(cache: Path) -> None:
    with pytest.raises(AssetError) as caught:
        fetch(asset("http://127.0.0.1:9/model.bin"), timeout=1)
    for part in (str(cache / "model.bin"), "http://127.0.0.1:9/model.bin", "DEEPREGIONS_CACHE"):
        assert part in str(caught.value)


def test_offline_nothing_is_asked_for(
    server: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEEPREGIONS_OFFLINE", "1")
    assert find(asset(f"{server}/right")) is None
    with pytest.raises(AssetError, match="DEEPREGIONS_OFFLINE"):
        fetch(asset(f"{server}/right"))
    monkeypatch.setenv("DEEPREGIONS_OFFLINE", "0")
    assert fetch(asset(f"{server}/right")).is_file()


def test_an_altered_file_in_the_cache_is_an_error_not_a_download(server: str, cache: Path) -> None:
    cache.mkdir()
    (cache / "model.bin").write_bytes(b"something else")
    for look in (find, fetch):
        with pytest.raises(AssetError, match="is not model"):
            look(asset(f"{server}/right"))
    assert (cache / "model.bin").read_bytes() == b"something else"


def test_a_cache_that_cannot_be_written_and_other_schemes(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("DEEPREGIONS_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(AssetError, match="could not be fetched"):
        fetch(asset(f"{server}/right"))
    monkeypatch.setenv("DEEPREGIONS_CACHE", str(tmp_path))
    with pytest.raises(AssetError, match="only http and https"):
        fetch(replace(asset(f"file://{tmp_path}/file"), name="other"))


def test_cache_dir_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPREGIONS_CACHE", "~/models")
    assert cache_dir() == Path.home() / "models"
    monkeypatch.delenv("DEEPREGIONS_CACHE")
    assert cache_dir().name == "deepregions"


def test_shipped_assets_are_what_the_shared_files_are(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deepregions.faces.finders import YUNET

    monkeypatch.setenv("DEEPREGIONS_CACHE", str(shared / "weights"))
    assert find(YUNET) == shared / "weights" / YUNET.name
