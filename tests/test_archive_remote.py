"""Files elsewhere: what a server says decides no path, and what goes wrong ends nothing else."""

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from archive_fakes import manifest_of, score
from test_answer import fused
from test_archive_scoring import files, rows, score_by_ray

from deepregions.archive.manifest import FileManifest, list_files
from deepregions.archive.remote import Fetcher, LocalCopy, list_remote
from deepregions.commands.cli import run
from deepregions.errors import MissingExtraError, UnreachableError, UsageError
from deepregions.media.frames import Limits

fsspec = pytest.importorskip("fsspec", reason="the extra remote is not installed")
pytest.importorskip("aiohttp", reason="the extra remote is not installed")

LAST = "Sun, 29 Nov 2026 10:00:00 GMT"


class Server(http.server.BaseHTTPRequestHandler):
    """Answers as the name of the file says; ``contents`` are the honest ones."""

    protocol_version = "HTTP/1.1"
    contents: dict[str, bytes] = {}  # noqa: RUF012 - shared by all requests

    def log_message(self, *_: Any) -> None:
        """Says nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        name = self.path.strip("/").partition(".")[0]
        body = self.contents.get(self.path.strip("/"), b"x" * 100)
        size: int | None = len(body)
        code = {"denied": 403, "error": 500, "gone": 404, "secret": 307}.get(name, 200)
        if name == "longer":
            size, body = (10, b"") if self.command == "HEAD" else (10**5, b"x" * 10**5)
        elif name in ("broken", "hangs"):
            size = 1000
        elif name == "endless":
            size = None
        self.send_response(code)
        self.send_header("Last-Modified", LAST)
        if name == "secret":
            self.send_header("Location", "/denied.jpg?token=SECRET")
        if size is not None:
            self.send_header("Content-Length", str(size if code == 200 else 0))
        self.close_connection = size is None or name == "broken"
        self.end_headers()
        if self.command == "HEAD" or code != 200:
            return
        self.wfile.write(body)
        if name == "hangs":
            time.sleep(5)
        while name == "endless":
            self.wfile.write(b"x" * 4096)
            time.sleep(0.01)


class _Quiet(http.server.ThreadingHTTPServer):
    def handle_error(self, *_: Any) -> None:
        """Whoever asked has gone."""


@pytest.fixture
def server() -> Iterator[str]:
    with _Quiet(("127.0.0.1", 0), Server) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        Server.contents = {}


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where copies are put."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    return tmp_path / "tmp"


def copies(temporary: Path) -> list[Path]:
    return [path for path in temporary.rglob("*") if path.is_file()]


def test_a_hostile_server_costs_one_file_each(server: str, temporary: Path) -> None:
    Server.contents = {"fine.JPG": b"fine"}
    seconds = int(time.mktime(time.strptime(LAST, "%a, %d %b %Y %H:%M:%S GMT"))) - time.timezone
    expected = {
        "longer.jpg": "it is longer than the 10 bytes that it may have",
        "broken.jpg": "fetching it failed (ClientPayloadError)",
        "endless.jpg": "fetching it takes more than 5 s",
        "hangs.jpg": "its connection hangs (no progress in 1.5 s)",
        "error.jpg": "fetching it failed (HTTP 500)",
        "secret.jpg": "access is denied",
        "gone.jpg": "it is not there",
    }
    with closing(Fetcher(Limits(seconds=5, silence=1.5))) as fetcher:
        for name, why in expected.items():
            copy = fetcher.fetch(f"{server}/{name}")
            assert copy == LocalCopy(copy.path, why=why)
            assert not copies(temporary)
        copy = fetcher.fetch(f"{server}/fine.JPG")
        assert (copy.path.read_bytes(), copy.path.suffix) == (b"fine", ".jpg")
        assert copy[1:] == (4, seconds * 1_000_000, "")
        assert copies(temporary) == [copy.path]
    assert not copies(temporary)


def test_what_is_no_file_is_not_read(temporary: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "a::file:b.jpg").write_bytes(b"1")
    with closing(Fetcher(Limits(seconds=10, silence=5))) as fetcher:
        for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
            assert fetcher.fetch(f"file://{path}").why == "it is no regular file"
        copy = fetcher.fetch(f"file://{tmp_path}/a::file:b.jpg")
        assert copy.path.read_bytes() == b"1"
        strange = fetcher.fetch(f"file://{tmp_path}/a.jpg/../../../x\n.sh")
        assert strange.why == "it is not there" and strange.path.suffix == ""


def test_after_many_failures_in_a_row_the_run_is_to_end(server: str, temporary: Path) -> None:
    with closing(Fetcher()) as fetcher:
        for _ in range(9):
            assert fetcher.fetch(f"{server}/denied.jpg").why == "access is denied"
        assert not fetcher.fetch(f"{server}/fine.jpg").why
        for _ in range(9):
            assert fetcher.fetch(f"{server}/denied.jpg").why
        with pytest.raises(UnreachableError, match="10 files in a row could not be fetched, the"):
            fetcher.fetch(f"{server}/denied.jpg")


@pytest.mark.parametrize("ray", [False, True])
def test_it_ends_then_and_goes_on_later(tmp_path: Path, ray: bool) -> None:
    files(tmp_path / "in", "a", "a", "network:", "a")
    manifest_of(tmp_path / "in", tmp_path / "m.parquet")
    if ray:
        assert "UnreachableError: 10 files in a row" in score_by_ray(tmp_path).stderr
    else:
        with pytest.raises(UnreachableError, match="10 files in a row"):
            score(tmp_path / "m.parquet", tmp_path / "out")
    (tmp_path / "in" / "00002.jpg").write_text("b")
    driver = score(tmp_path / "m.parquet", tmp_path / "out")
    assert driver.done + driver.skipped == 4 and driver.done >= 2
    assert [row["status"] for row in rows(tmp_path / "out")] == ["ok"] * 4


def test_copies_of_a_killed_process_go_with_it(temporary: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"1")
    code = "import sys, time; from deepregions.archive.remote import Fetcher; f = Fetcher(); "
    code += "print(f.fetch(sys.argv[1]).path, flush=True); time.sleep(60)"
    command = [sys.executable, "-c", code, f"file://{tmp_path}/a.jpg"]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        path = Path(process.stdout.readline().strip())
        assert path.read_bytes() == b"1"
        process.send_signal(signal.SIGKILL)
    until = time.monotonic() + 20
    while copies(temporary) and time.monotonic() < until:
        time.sleep(0.05)
    assert not copies(temporary)


def test_what_all_processes_of_a_run_leave_is_cleared_by_the_next(temporary: Path) -> None:
    home = temporary / f"deepregions-{os.getuid()}"
    with closing(Fetcher()) as first:
        left = first._folder / "left.jpg"
    left.parent.mkdir()
    left.write_bytes(b"of a machine that was switched off")
    with closing(Fetcher()):
        assert not copies(temporary)
    home.chmod(0o755)
    with pytest.raises(UsageError, match="is open to other users"):
        Fetcher()


def test_folders_elsewhere_are_walked_as_those_here(tmp_path: Path) -> None:
    system = fsspec.filesystem("memory")
    for name in ("b/deep/2.jpg", "a.jpg", ".hidden.jpg", "z::file:x.xml", "b.jpg", "caf\xe9.jpg"):
        system.pipe(f"/archive/{name}", name.encode())
    try:
        found = list(list_files(["memory://archive"], warn=pytest.fail))
        few = list(list_files(["memory://archive/"], media_only=True, warn=pytest.fail))
        (one,) = list_files(["memory://archive/b.jpg"], warn=pytest.fail)
    finally:
        system.rm("/archive", recursive=True)
    names = ["a.jpg", "b.jpg", "b/deep/2.jpg", "caf\xe9.jpg", "z::file:x.xml"]
    assert [each.path for each in found] == [f"memory://archive/{name}" for name in names]
    assert [(each.id, each.size) for each in found] == [
        *enumerate(map(len, map(str.encode, names)))
    ]
    assert all(each.mtime for each in found)
    assert [each.path for each in few] == [each.path for each in found[:4]]
    assert one[1:] == found[1][1:]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    there = [each.path for each in list_remote(f"file://{tmp_path}", pytest.fail)]
    here = [each.path for each in list_files([tmp_path], warn=pytest.fail)]
    assert there == [f"file://{path}" for path in here]


class Strange(fsspec.AbstractFileSystem):  # type: ignore[misc]
    """Lists what is not in the folder, and folders without end."""

    protocol = "strange"

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        return {"name": path, "type": "directory", "size": 0}

    def ls(self, path: str, **_: Any) -> list[dict[str, Any]]:
        if len(path) > 2000:
            raise PermissionError("token=SECRET")
        names = (
            "/etc/passwd",
            "s3://other/x.jpg",
            f"{path}/..",
            f"{path}/a/b.jpg",
            path,
            path[:-1],
        )
        files = [{"name": name, "type": "file", "size": 1} for name in names]
        fine = {"name": f"{path}/fine.jpg", "type": "file", "size": "many", "mtime": "today"}
        files.append({"name": f"{path}/", "type": "directory"})
        return [*files, fine, {"name": f"{path}/{'d' * 700}", "type": "directory"}]


def test_a_listing_names_only_what_is_in_it() -> None:
    fsspec.register_implementation("strange", Strange, clobber=True)
    said: list[str] = []
    found = list(list_remote("strange://bucket", said.append))
    deep = [f"strange://bucket{('/' + 'd' * 700) * depth}/fine.jpg" for depth in range(3)]
    assert sorted(each.path for each in found) == sorted(deep)
    assert {(each.size, each.mtime) for each in found} == {(None, None)}
    assert len(said) == 4 and "SECRET" not in "".join(said)
    assert said[0] == "strange://bucket: 6 names that are none of files in it: not listed"
    assert said[-1].endswith("access is denied: not listed")


def test_what_is_missing_or_secret_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    listed, out = tmp_path / "list.txt", tmp_path / "m.parquet"
    table = tmp_path / "table.csv"
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    listed.write_text("https://host/a.jpg?X-Amz-Signature=SECRET\n")
    table.write_text("path,id\nftp://me:SECRET@host/a.jpg,1\n")
    for root, said in (
        (
            "gs://bucket",
            "gs:// needs a package that is missing (pip install 'deepregions[remote]')",
        ),
        ("abfs://bucket", "abfs:// needs a package that is missing (Install adlfs"),
        ("nope://bucket", "nope:// is no address that can be read"),
        ("memory://nothing", "memory://nothing: no such file or folder"),
        (
            "sftp://me:SECRET@host/folder",
            "a password or a signature: it would stand in the results",
        ),
        (str(listed), "list.txt has an address with a password or a signature"),
        (str(table), "table.csv has an address with a password or a signature"),
    ):
        assert run(["archive", "manifest", root, "--out", str(out)]) in (1, 2)
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1 and "SECRET" not in error
        assert not out.exists()
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"id": [1], "path": ["s3://me:SECRET@bucket/a"]}), out)
    with pytest.raises(UsageError, match="has an address with a password"):
        list(FileManifest(out).chunks(4))
    monkeypatch.setitem(sys.modules, "fsspec.registry", None)
    with pytest.raises(MissingExtraError, match=r"fsspec is not installed \(pip install 'deepr"):
        list(list_remote("s3://bucket", pytest.fail))


def test_files_elsewhere_score_as_those_here(
    portrait: Path,
    server: str,
    temporary: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By two workers, from a server: the same rows, but for the names."""
    content = portrait.read_bytes()
    Server.contents = {
        "a.png": content,
        "b.jpg": content,
        "c.jpg": b"no picture",
        "d.jpg": b"",
        "e.jpg": b"<html>",
    }
    names = [*Server.contents, "gone.mp4"]
    (tmp_path / "in").mkdir()
    for name, content in Server.contents.items():
        (tmp_path / "in" / name).write_bytes(content)
    fused(tmp_path / "bundle")
    options = ["--bundle", str(tmp_path / "bundle"), "--landmarks=dlib-hog", "--workers=2"]
    options += ["--max-false-alarms=0.01", "--pages=evidence"]
    found = []
    for out, place in ((tmp_path / "here", f"{tmp_path}/in"), (tmp_path / "there", server)):
        (tmp_path / "list.txt").write_text("".join(f"{place}/{name}\n" for name in names))
        manifest = str(out.with_suffix(".parquet"))
        assert run(["archive", "manifest", str(tmp_path / "list.txt"), "--out", manifest]) == 0
        assert run(["archive", "score", manifest, "--out", str(out), *options]) == 0
        text = json.dumps(rows(out), default=str)
        found.append(json.loads(text.replace(place, "PLACE")))
        pages = sorted(path.name for path in (out / "pages").iterdir())
        assert pages == ["0.html", "1.html"]
        assert f"{place}/a.png" in (out / "pages" / "0.html").read_text()
    here, there = found
    for row in (*here, *there):
        row.pop("size"), row.pop("mtime")
    assert here[-1].pop("message") == "PLACE/gone.mp4: No such file or directory (check the path)"
    assert there[-1].pop("message") == "PLACE/gone.mp4: it is not there"
    assert here[-1].pop("answer") and there[-1].pop("answer")
    assert here == there
    assert [row["status"] for row in there] == ["ok", "ok", *["unreadable"] * 4]
    until = time.monotonic() + 20
    while copies(temporary) and time.monotonic() < until:  # its processes are just ending
        time.sleep(0.05)
    assert not copies(temporary) and [*temporary.iterdir()]


def test_a_file_that_has_changed_since_it_was_listed_says_so(
    portrait: Path, temporary: Path, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    for name in ("0.png", "1.png", "2.png"):
        (tmp_path / "in" / name).write_bytes(portrait.read_bytes())
    fused(tmp_path / "bundle")
    manifest, out = str(tmp_path / "m.parquet"), tmp_path / "out"
    assert run(["archive", "manifest", f"file://{tmp_path}/in", "--out", manifest]) == 0
    (chunk,) = FileManifest(Path(manifest)).chunks(4)
    assert chunk["path"][0].as_py() == f"file://{tmp_path}/in/0.png"
    with (tmp_path / "in" / "0.png").open("ab") as stream:
        stream.write(b"more")
    os.utime(tmp_path / "in" / "1.png", (0, 0))
    (tmp_path / "in" / "2.png").unlink()
    options = ["--bundle", str(tmp_path / "bundle"), "--landmarks=dlib-hog"]
    assert run(["archive", "score", manifest, "--out", str(out), *options]) == 0
    changed = [(row["status"], row["warnings"][0]) for row in rows(out)]
    since = "it has changed since it was listed: "
    assert (
        changed[0][0] == "ok" and changed[0][1].startswith(since) and "bytes then" in changed[0][1]
    )
    assert changed[1] == ("ok", since + "it was written to")
    assert changed[2] == ("unreadable", "it was there when it was listed, and is not now")
