"""Assets: found, fetched from a real server on this machine, verified, or refused with a hint."""

from __future__ import annotations

import contextlib
import hashlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
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
NONE = (0, 0, 0, 0, 0)


class Server(BaseHTTPRequestHandler):
    """Each page is a server with a habit of its own; what it was asked is kept."""

    protocol_version = "HTTP/1.1"
    asked: ClassVar[list[tuple[str, str | None, str | None]]] = []

    def do_GET(self) -> None:
        self.close_connection = True
        wanted = self.headers.get("Range")
        Server.asked.append((self.path, wanted, self.headers.get("If-Range")))
        count = sum(path == self.path for path, *_ in Server.asked)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        getattr(self, self.path.rpartition("/")[2])(start, count)

    def give(
        self, body: bytes, start: int = 0, *, cut: int | None = None, **headers: str | None
    ) -> None:
        self.send_response(206 if start else 200)
        fields: dict[str, str | None] = {"Content_Length": str(len(body) - start)}
        if start:
            fields["Content_Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        for name, value in (fields | headers).items():
            if value is not None:
                self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body[start:][:cut])

    def right(self, start: int, count: int) -> None:
        self.give(CONTENT)

    def wrong(self, start: int, count: int) -> None:
        self.give(CONTENT[::-1])

    def missing(self, start: int, count: int) -> None:
        self.send_error(404)

    def broken(self, start: int, count: int) -> None:
        self.send_error(500)

    def busy_twice(self, start: int, count: int) -> None:
        if count <= 2:
            self.send_error(503)
        else:
            self.give(CONTENT)

    def nothing_there(self, start: int, count: int) -> None:
        self.send_error(416)

    def truncated(self, start: int, count: int) -> None:
        self.give(CONTENT, cut=1000)  # whatever is asked for

    def silent(self, start: int, count: int) -> None:
        self.give(CONTENT, cut=0)
        self.server.released.wait(20)  # type: ignore[attr-defined]

    def endless(self, start: int, count: int) -> None:
        self.give(CONTENT, Content_Length=None)
        while not self.server.released.is_set():  # type: ignore[attr-defined]
            self.wfile.write(CONTENT)

    def stalls(self, start: int, count: int) -> None:
        self.give(CONTENT, start, cut=300_000)
        if not start:
            self.wfile.flush()
            self.server.released.wait(60)  # type: ignore[attr-defined]

    def drops(self, start: int, count: int) -> None:
        self.give(CONTENT, start, cut=100_000, ETag='"one"')

    def drops_chunks(self, start: int, count: int) -> None:
        if count > 1:
            self.give(CONTENT, start)
            return
        self.give(b"", Content_Length=None, Transfer_Encoding="chunked")
        self.wfile.write(b"400\r\n" + CONTENT[:1024] + b"\r\n400\r\n" + CONTENT[:5])

    def drops_and_ignores_ranges(self, start: int, count: int) -> None:
        self.give(CONTENT, cut=100_000 if count == 1 else None)

    def drops_and_shrinks(self, start: int, count: int) -> None:
        if start:
            self.send_error(416)
        else:
            self.give(CONTENT, cut=100_000 if count == 1 else None)

    def drops_and_misses(self, start: int, count: int) -> None:
        self.give(CONTENT, start and start - 7, cut=100_000 if count == 1 else None)

    def changes(self, start: int, count: int) -> None:
        """Another file after the first answer; it knows If-Range, as it should."""
        if count == 1:
            self.give(CONTENT[::-1], cut=100_000, ETag='"old"')
        elif self.headers.get("If-Range") == '"old"':
            self.give(CONTENT, ETag='"new"')
        else:
            self.give(CONTENT, start, ETag='"new"')

    def changes_and_says_so(self, start: int, count: int) -> None:
        """The same, but it does not know If-Range."""
        if count == 1:
            self.give(CONTENT[::-1], cut=100_000, ETag='"old"')
        else:
            self.give(CONTENT, start, ETag='"new"')

    def changes_silently(self, start: int, count: int) -> None:
        """The same, and it has no names for versions."""
        self.give(CONTENT[::-1] if count == 1 else CONTENT, start, cut=100_000 * count)

    def says_too_much(self, start: int, count: int) -> None:
        self.give(CONTENT, Content_Length=str(len(CONTENT) + 5))

    def says_too_little(self, start: int, count: int) -> None:
        self.give(CONTENT, Content_Length=str(len(CONTENT) - 5))

    def says_far_too_much(self, start: int, count: int) -> None:
        self.give(CONTENT, Content_Length=str(1 << 40))

    def elsewhere(self, start: int, count: int) -> None:
        self.send_response(302)
        self.send_header("Location", "/drops")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def to_a_file(self, start: int, count: int) -> None:
        self.send_response(302)
        self.send_header("Location", "file:///etc/hostname")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def handle(self) -> None:
        with contextlib.suppress(OSError):  # the client left, as it should
            super().handle()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def running() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        running.released = threading.Event()  # type: ignore[attr-defined]
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.released.set()  # type: ignore[attr-defined]
        running.shutdown()


@pytest.fixture
def server(running: str) -> str:
    Server.asked.clear()
    return running


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
    [
        ("missing", "404"),
        ("nothing_there", "416"),
        ("broken", "500"),
        ("wrong", "SHA-256.*deleted"),
        ("says_too_little", "SHA-256.*deleted"),
        ("says_far_too_much", "1099511627776 bytes, more than"),
        ("to_a_file", "HTTPError"),
    ],
)
def test_what_is_not_the_file_is_refused_and_leaves_nothing(
    server: str, cache: Path, page: str, reason: str
) -> None:
    with pytest.raises(AssetError, match=reason):
        fetch(asset(f"{server}/{page}"), pauses=NONE)
    assert list(cache.iterdir()) == []


def test_a_server_that_says_nothing_or_never_stops(
    server: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(AssetError, match="timed out"):
        fetch(asset(f"{server}/silent"), timeout=0.2, pauses=[0])
    assert len(Server.asked) == 2
    monkeypatch.setattr(assets, "MAX_BYTES", 1 << 20)
    with pytest.raises(AssetError, match="more than 1048576 bytes"):
        fetch(asset(f"{server}/endless"))
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize(
    ("page", "requests"),
    [
        ("drops", 6),
        ("drops_chunks", 2),
        ("drops_and_ignores_ranges", 2),
        ("drops_and_shrinks", 3),
        ("drops_and_misses", 3),
        ("changes", 2),
        ("changes_and_says_so", 3),
        ("says_too_much", 1),
        ("busy_twice", 3),
        ("elsewhere", 12),
    ],
)
def test_what_was_cut_off_is_resumed_or_begun_again(
    server: str, cache: Path, page: str, requests: int
) -> None:
    assert fetch(asset(f"{server}/{page}"), pauses=NONE).read_bytes() == CONTENT
    assert [path.name for path in cache.iterdir()] == ["model.bin"]
    assert len(Server.asked) == requests


@pytest.mark.parametrize("page", ["drops_and_misses", "changes_and_says_so"])
def test_what_does_not_fit_is_seen_before_it_is_fetched(
    server: str, cache: Path, page: str
) -> None:
    told: list[int] = []
    fetch(asset(f"{server}/{page}"), pauses=NONE, progress=lambda done, _: told.append(done))
    assert [done for done in told if done >= len(CONTENT)] == [len(CONTENT)]


def test_attempts_are_counted_anew_once_more_has_arrived(server: str, cache: Path) -> None:
    assert fetch(asset(f"{server}/drops"), pauses=[0, 0, 0]).is_file()  # it drops five times
    with pytest.raises(AssetError, match="500000 bytes are kept"):
        fetch(replace(asset(f"{server}/drops"), name="again"), pauses=[0, 0])


def test_a_server_is_asked_again_only_if_it_has_answered(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Leaves(Server):
        def leaves(self, start: int, count: int) -> None:
            self.give(CONTENT, cut=1000)
            self.server.server_close()  # nobody listens from now on

    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    with ThreadingHTTPServer(("127.0.0.1", 0), Leaves) as running:
        running.daemon_threads = True
        running.block_on_close = False
        threading.Thread(target=running.handle_request, daemon=True).start()
        wanted = asset(f"http://127.0.0.1:{running.server_port}/leaves")
        with pytest.raises(AssetError, match=r"refused.*1000 bytes are kept"):
            fetch(wanted, pauses=[1, 2])
        assert pauses == [1, 2]
        with pytest.raises(AssetError, match=r"refused.*1000 bytes are kept"):
            fetch(wanted, pauses=[1, 2])
        assert pauses == [1, 2]


def test_a_process_that_was_killed_leaves_what_it_had(server: str, cache: Path) -> None:
    wanted = asset(f"{server}/stalls")
    code = f"from deepregions.assets import *; fetch(Asset(**{asdict(wanted)}))"
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        for _ in range(600):
            parts = [path.stat().st_size for path in cache.glob(".model.bin.*.part")]
            if parts == [300_000]:
                break
            time.sleep(0.05)
        process.kill()
    assert parts == [300_000]
    assert fetch(wanted).read_bytes() == CONTENT
    assert Server.asked[-1][1] == "bytes=300000-"
    assert [path.name for path in cache.iterdir()] == ["model.bin"]


def test_only_what_is_missing_is_asked_for(server: str, cache: Path) -> None:
    fetch(asset(f"{server}/drops"), pauses=NONE)
    assert Server.asked[0][1:] == (None, None)
    assert Server.asked[1][1:] == ("bytes=100000-", '"one"')
    assert Server.asked[-1][1:] == ("bytes=500000-", '"one"')


def test_halves_of_two_versions_are_thrown_away_once(server: str, cache: Path) -> None:
    wanted = asset(f"{server}/changes_silently")
    path = fetch(wanted, pauses=[0] * 9)
    assert path.read_bytes() == CONTENT
    assert [asked[1] for asked in Server.asked].count(None) == 2  # from the start, twice


def test_attempts_end(server: str, cache: Path) -> None:
    with pytest.raises(AssetError, match=r"after 1000 of 512000 bytes; 1000 bytes are kept"):
        fetch(asset(f"{server}/truncated"), pauses=NONE)
    assert len(Server.asked) == 1 + len(NONE)


def test_a_later_run_goes_on_where_an_earlier_one_was_stopped(server: str, cache: Path) -> None:
    wanted = asset(f"{server}/drops")
    with pytest.raises(AssetError, match="100000 bytes are kept"):
        fetch(wanted, pauses=[])
    (part,) = cache.glob(".model.bin.*.part")
    assert wanted.sha256[:16] in part.name
    assert part.stat().st_size == 100_000
    assert not (cache / "model.bin").exists()
    Server.asked.clear()
    assert fetch(wanted, pauses=NONE).read_bytes() == CONTENT
    assert Server.asked[0][1:] == ("bytes=100000-", '"one"')
    assert [path.name for path in cache.iterdir()] == ["model.bin"]


def test_a_whole_file_that_was_not_yet_named_is_not_fetched_again(server: str, cache: Path) -> None:
    wanted = asset(f"{server}/missing")
    cache.mkdir()
    (cache / f".model.bin.{wanted.sha256[:16]}.part").write_bytes(CONTENT)
    assert fetch(wanted).read_bytes() == CONTENT
    assert not Server.asked


def test_rubbish_left_by_an_earlier_run_is_begun_again(server: str, cache: Path) -> None:
    wanted = asset(f"{server}/drops")
    cache.mkdir()
    (cache / f".model.bin.{wanted.sha256[:16]}.part").write_bytes(b"x" * 450_000)
    assert fetch(wanted, pauses=[0] * 9).read_bytes() == CONTENT


def test_a_declared_size_is_where_it_stops(server: str, cache: Path) -> None:
    with pytest.raises(AssetError, match="of 512000 bytes, more than 1000"):
        fetch(replace(asset(f"{server}/right"), size=1000))
    with pytest.raises(AssetError, match="more than 1000 bytes"):
        fetch(replace(asset(f"{server}/endless"), size=1000))
    assert list(cache.iterdir()) == []


def test_a_server_that_promises_too_much_is_not_waited_for(server: str, cache: Path) -> None:
    assert fetch(asset(f"{server}/says_too_much"), pauses=[]).read_bytes() == CONTENT


def test_progress_is_told(server: str, cache: Path) -> None:
    told: list[tuple[int, int | None]] = []
    fetch(asset(f"{server}/drops"), pauses=NONE, progress=lambda *now: told.append(now))
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_several_at_once_fetch_it_once(server: str, cache: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        wanted = asset(f"{server}/drops")
        paths = list(pool.map(lambda _: fetch(wanted, pauses=NONE), range(4)))
    assert set(paths) == {cache / "model.bin"}
    assert len(Server.asked) == 6
    assert [path.name for path in cache.iterdir()] == ["model.bin"]


def test_a_proxy_of_the_environment_is_used(
    server: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server)
    monkeypatch.setenv("no_proxy", "")
    assert fetch(asset("http://models.invalid/right")).read_bytes() == CONTENT
    assert Server.asked[0][0] == "http://models.invalid/right"


def test_another_folder(server: str, cache: Path, tmp_path: Path) -> None:
    wanted = asset(f"{server}/right")
    assert fetch(wanted, folder=tmp_path / "here") == tmp_path / "here" / "model.bin"
    assert find(wanted) is None
    assert find(wanted, folder=tmp_path / "here") == tmp_path / "here" / "model.bin"


def test_the_error_names_file_url_and_variable(cache: Path) -> None:
    with pytest.raises(AssetError) as caught:  # at once: nobody answers there
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
