"""Assets: found, fetched from a real server on this machine, verified, or refused with a hint."""

import contextlib
import hashlib
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from deepregions import assets
from deepregions.assets import Asset, cache_dir, fetch, find
from deepregions.errors import AssetError

CONTENT = bytes(range(256)) * 2000


class Server(BaseHTTPRequestHandler):
    """Each page is a server with a habit of its own; what it was asked is kept."""

    protocol_version = "HTTP/1.1"
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.close_connection = True
        Server.asked.append(self.path)
        getattr(self, self.path.rpartition("/")[2])()

    def give(self, body: bytes, *, status: int = 200, **headers: str | None) -> None:
        self.send_response(status)
        for name, value in ({"Content_Length": str(len(body))} | headers).items():
            if value is not None:
                self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def right(self) -> None:
        self.give(CONTENT)

    def wrong(self) -> None:
        self.give(CONTENT[::-1])

    def missing(self) -> None:
        self.send_error(404)

    def drops(self) -> None:
        self.give(CONTENT[:1000], Content_Length=str(len(CONTENT)))

    def drops_chunks(self) -> None:
        self.give(b"400\r\n" + CONTENT[:9], Content_Length=None, Transfer_Encoding="chunked")

    def says_far_too_much(self) -> None:
        self.give(b"", Content_Length=str(1 << 40))

    def silent(self) -> None:
        self.server.released.wait(60)  # type: ignore[attr-defined]

    def stalls(self) -> None:
        self.drops()
        self.wfile.flush()
        self.silent()

    def endless(self) -> None:
        self.give(CONTENT, Content_Length=None)
        while not self.server.released.is_set():  # type: ignore[attr-defined]
            self.wfile.write(CONTENT)

    def elsewhere(self) -> None:
        self.give(b"", status=302, Location="/right")

    def to_a_file(self) -> None:
        self.give(b"", status=302, Location="file:///etc/hostname")

    def handle(self) -> None:
        with contextlib.suppress(OSError):  # the client left, as it should
            super().handle()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server():
    Server.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        running.released = threading.Event()  # type: ignore[attr-defined]
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.released.set()  # type: ignore[attr-defined]
        running.shutdown()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "a cache"
    monkeypatch.setenv("DEEPREGIONS_CACHE", str(folder))
    monkeypatch.delenv("DEEPREGIONS_OFFLINE", raising=False)
    return folder


def asset(url: str) -> Asset:
    return Asset("model.bin", url, hashlib.sha256(CONTENT).hexdigest(), "CC0-1.0", "the tests")


def test_fetches_verifies_and_then_needs_no_server(server, cache, tmp_path):
    told: list[tuple[int, int | None]] = []
    wanted = asset(f"{server}/elsewhere")
    path = fetch(wanted, progress=lambda *now: told.append(now))
    assert path == cache / "model.bin"
    assert path.read_bytes() == CONTENT
    assert told == sorted(told)
    assert told[-1] == (len(CONTENT), len(CONTENT))
    Server.asked.clear()
    assert fetch(wanted) == find(wanted) == path
    assert not Server.asked
    assert find(wanted, folder=tmp_path / "here") is None
    assert fetch(wanted, folder=tmp_path / "here") == tmp_path / "here" / "model.bin"


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        ("missing", "404"),
        ("wrong", "SHA-256.*deleted"),
        ("drops", "after 1000 of 512000 bytes"),
        ("drops_chunks", "IncompleteRead"),
        ("says_far_too_much", "1099511627776 bytes, more than"),
        ("silent", "timed out"),
        ("stalls", "timed out"),
        ("endless", "more than 1048576 bytes"),
        ("to_a_file", "HTTPError"),
    ],
)
def test_what_is_not_the_file_is_refused_and_leaves_nothing(
    server, cache, page, reason, monkeypatch
):
    monkeypatch.setattr(assets, "MAX_BYTES", 1 << 20)
    with pytest.raises(AssetError, match=reason) as caught:
        fetch(asset(f"{server}/{page}"), timeout=0.2)
    for part in (str(cache / "model.bin"), f"{server}/{page}", "DEEPREGIONS_CACHE"):
        assert part in str(caught.value)
    assert not cache.exists() or list(cache.iterdir()) == []


def test_a_declared_size_is_where_it_stops(server, cache):
    with pytest.raises(AssetError, match="has 512000 bytes, more than 1000"):
        fetch(replace(asset(f"{server}/right"), size=1000))


def test_the_first_digits_of_a_digest_are_checked_where_no_more_is_known(server, cache):
    whole = asset(f"{server}/right")
    with pytest.raises(AssetError, match="SHA-256"):
        fetch(replace(whole, sha256="0000"))
    for known in (whole.sha256[:8], ""):
        wanted = replace(whole, name=f"{known}.bin", sha256=known)
        assert fetch(wanted).read_bytes() == CONTENT


def test_a_process_that_was_killed_leaves_no_file_of_that_name(server, cache):
    code = f"from deepregions.assets import *; fetch(Asset(**{asdict(asset(f'{server}/stalls'))}))"
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        while not Server.asked and process.poll() is None:
            time.sleep(0.05)
        time.sleep(0.2)
        process.kill()
    assert not (cache / "model.bin").exists()
    assert fetch(asset(f"{server}/right")).read_bytes() == CONTENT
    assert [path.name for path in cache.iterdir()] == ["model.bin"]


def test_several_at_once(server, cache):
    wanted = asset(f"{server}/right")
    with ThreadPoolExecutor(4) as pool:
        assert {*pool.map(lambda _: fetch(wanted), range(4))} == {cache / "model.bin"}
    assert [path.name for path in cache.iterdir()] == ["model.bin"]
    assert find(wanted)


def test_a_proxy_of_the_environment_is_used(server, cache, monkeypatch):
    monkeypatch.setenv("http_proxy", server)
    monkeypatch.setenv("no_proxy", "")
    assert fetch(asset("http://models.invalid/right")).read_bytes() == CONTENT
    assert Server.asked == ["http://models.invalid/right"]


def test_offline_nothing_is_asked_for(server, cache, monkeypatch):
    monkeypatch.setenv("DEEPREGIONS_OFFLINE", "1")
    assert find(asset(f"{server}/right")) is None
    with pytest.raises(AssetError, match="DEEPREGIONS_OFFLINE"):
        fetch(asset(f"{server}/right"))
    assert not Server.asked
    monkeypatch.setenv("DEEPREGIONS_OFFLINE", "0")
    assert fetch(asset(f"{server}/right")).is_file()


def test_an_altered_file_in_the_cache_is_an_error_not_a_download(server, cache):
    cache.mkdir()
    (cache / "model.bin").write_bytes(b"something else")
    for look in (find, fetch):
        with pytest.raises(AssetError, match=r"is not model.*delete it"):
            look(asset(f"{server}/right"))
    assert (cache / "model.bin").read_bytes() == b"something else"


def test_a_cache_that_cannot_be_written_and_other_schemes(server, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("DEEPREGIONS_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(AssetError, match="could not be fetched"):
        fetch(asset(f"{server}/right"))
    with pytest.raises(AssetError, match="only http and https"):
        fetch(asset(f"file://{tmp_path}/file"))


def test_cache_dir_follows_the_environment(monkeypatch):
    monkeypatch.setenv("DEEPREGIONS_CACHE", "~/models")
    assert cache_dir() == Path.home() / "models"
    monkeypatch.delenv("DEEPREGIONS_CACHE")
    assert cache_dir().name == "deepregions"
