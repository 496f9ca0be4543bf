"""Bundles on the Hub, through the real huggingface_hub against a stand-in that speaks its protocol.

The stand-in asks for regular files, base64 in one commit. Uploads of large files as the Hub itself
takes them (LFS or Xet) are not covered.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import huggingface_hub
import pytest
import torch
from huggingface_hub import ModelCard
from networks import member

from deepregions.commands.cli import run
from deepregions.deploy.exported import ExportedSystem
from deepregions.detectors import Capsule
from deepregions.errors import AssetError, UsageError
from deepregions.pipeline.build import load_networks
from deepregions.weights import hub
from deepregions.weights.bundle import Bundle, load_bundle, save_bundle
from deepregions.weights.bundle_folder import default_bundle
from deepregions.weights.hub import HubName, hub_name

TOKEN = "hf_a_token"


class Hub:
    """Repositories by name: commits, each a folder by path, the last one ``main``."""

    def __init__(self) -> None:
        self.repositories: dict[str, list[dict[str, bytes]]] = {}
        self.private: dict[str, bool] = {}
        self.asked: list[str] = []
        self.down = False

    @staticmethod
    def oid(number: int) -> str:
        return hashlib.sha1(str(number).encode()).hexdigest()

    def commit(self, repository: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        commits = self.repositories[repository]
        for number, files in enumerate(commits):
            last = number == len(commits) - 1
            if revision in (self.oid(number), f"v{number}") or (revision == "main" and last):
                return self.oid(number), files
        return None


class StandIn(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> Hub:
        return self.server.hub  # type: ignore[attr-defined,no-any-return]

    def give(self, code: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(code)
        for name, value in ({"Content_Length": str(len(body))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def give_json(self, value: Any) -> None:
        self.give(200, json.dumps(value).encode(), Content_Type="application/json")

    def refused(self) -> bool:
        self.hub.asked.append(f"{self.command} {self.path}")
        if self.hub.down:
            self.give(503)
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.give(401, X_Error_Message="Invalid username or password.")
        else:
            return False
        return True

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        if self.refused():
            return
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        if parts[:2] == ["api", "models"]:
            repository, *rest = "/".join(parts[2:4]), *parts[4:]
            kind, revision = rest if rest else ("revision", "main")
        else:
            repository, kind, revision = "/".join(parts[:2]), parts[2], parts[3]
        if repository == "someone/gated":
            self.give(403, X_Error_Code="GatedRepo", X_Error_Message="Access is restricted")
        elif repository not in self.hub.repositories:
            self.give(404, X_Error_Code="RepoNotFound")
        elif (commit := self.hub.commit(repository, revision)) is None:
            self.give(404, X_Error_Code="RevisionNotFound")
        else:
            self.answer(kind, repository, *commit, "/".join(parts[4:]))

    def answer(
        self, kind: str, repository: str, oid: str, files: dict[str, bytes], path: str
    ) -> None:
        if kind == "revision":
            siblings = [{"rfilename": name} for name in files]
            self.give_json({"id": repository, "sha": oid, "siblings": siblings, "private": False})
        elif kind == "tree":
            self.give_json(
                [
                    {"type": "file", "path": name, "size": len(body), "oid": tag(body)}
                    for name, body in files.items()
                ]
            )
        elif kind == "resolve" and path in files:
            etag = f'"{tag(files[path])}"'
            self.give(200, files[path], ETag=etag, X_Repo_Commit=oid)
        else:
            self.give(404, X_Error_Code="EntryNotFound")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.refused():
            return
        parts = urlsplit(self.path).path.strip("/").split("/")
        if parts[1:] == ["repos", "create"]:
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            if name in self.hub.repositories:
                body = {"error": "You already created this model repo", "url": self.url(name)}
                self.give(409, json.dumps(body).encode())
                return
            self.hub.repositories[name] = [{".gitattributes": b"*.safetensors lfs"}]
            self.hub.private[name] = "private" in (asked.get("visibility"), asked.get("private"))
            self.give_json({"url": self.url(name)})
            return
        if parts[1:] == ["validate-yaml"]:  # the Hub looks at the card before it takes it
            ModelCard(json.loads(body)["content"])
            self.give_json({"errors": [], "warnings": []})
            return
        repository, kind = "/".join(parts[2:4]), parts[4]
        if kind == "preupload":
            names = [file["path"] for file in json.loads(body)["files"]]
            self.give_json(
                {
                    "files": [
                        {"path": name, "uploadMode": "regular", "shouldIgnore": False}
                        for name in names
                    ]
                }
            )
        elif kind == "commit":
            self.commit(repository, body)

    def commit(self, repository: str, body: bytes) -> None:
        commits = self.hub.repositories[repository]
        files = dict(commits[-1])
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        commits.append(files)
        oid = Hub.oid(len(commits) - 1)
        url = f"{self.url(repository)}/commit/{oid}"
        self.give_json({"commitUrl": url, "commitOid": oid, "pullRequestUrl": None})

    def url(self, repository: str) -> str:
        return f"http://{self.headers['Host']}/{repository}"

    def log_message(self, *args: object) -> None:
        pass


def tag(body: bytes) -> str:
    return hashlib.sha1(body).hexdigest()


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, ThreadingHTTPServer]]:
    with ThreadingHTTPServer(("127.0.0.1", 0), StandIn) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", running
        running.shutdown()


@pytest.fixture
def stand_in(
    address: tuple[str, ThreadingHTTPServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Hub:
    endpoint, running = address
    running.hub = Hub()  # type: ignore[attr-defined]
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.delenv("DEEPREGIONS_OFFLINE", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    huggingface_hub.utils.disable_progress_bars()
    return running.hub  # type: ignore[attr-defined,no-any-return]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("bundles") / "capsule"
    save_bundle([member(Capsule(size=64).eval())], path)
    return path


@pytest.fixture
def hosted(stand_in: Hub, bundle: Path) -> Hub:
    """The stand-in with a bundle, among files that are none of a bundle's."""
    files = {path.name: path.read_bytes() for path in bundle.iterdir()}
    files |= {
        "evil.py": b"raise SystemExit",
        "pytorch_model.bin": b"a pickle",
        "sub/model.safetensors": b"x",
        "../evil.safetensors": b"x",
        "/tmp/evil.safetensors": b"x",
    }
    stand_in.repositories["someone/capsule"] = [{"README.md": b"nothing yet"}, files]
    return stand_in


def test_what_is_downloaded_is_what_was_saved(hosted: Hub, bundle: Path, tmp_path: Path) -> None:
    path = Path("hf://someone/capsule")  # which has one slash less
    (ours,), (theirs,) = load_bundle(bundle), load_bundle(path)
    crops = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(theirs.detector(crops), ours.detector(crops), rtol=0, atol=0)
    fetched = {line.rpartition("/")[2] for line in hosted.asked if "/resolve/" in line}
    assert fetched == {path.name for path in bundle.iterdir()}
    assert not [*tmp_path.rglob("evil*"), *tmp_path.rglob("*.bin")]


def test_once_fetched_it_needs_no_network(
    hosted: Hub, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_bundle("hf://someone/capsule@v1")
    hosted.asked.clear()
    monkeypatch.setenv("DEEPREGIONS_OFFLINE", "1")
    assert load_bundle("hf://someone/capsule@v1")
    with pytest.raises(AssetError, match="OFFLINE is set"):
        hub.push(bundle, "me/faces")
    assert not hosted.asked
    with pytest.raises(AssetError, match=r"hf://someone/other is not in the cache.*OFFLINE is set"):
        load_bundle("hf://someone/other")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("someone/nothing", "is not on the Hub, or it is private.*hf auth login"),
        ("someone/gated", "whom its owner lets in"),
        ("someone/capsule@v9", "@v9: there is no such revision"),
        ("someone/capsule@v0", "@v0 holds no bundle"),
    ],
)
def test_what_is_not_to_be_had_is_one_clear_error(hosted: Hub, name: str, message: str) -> None:
    with pytest.raises(AssetError, match=message) as caught:
        load_bundle(f"hf://{name}")
    assert "\n" not in str(caught.value)


def test_a_hub_that_is_down_or_not_there(hosted: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hosted.down = True
    with pytest.raises(AssetError, match="hf://someone/capsule") as caught:
        load_bundle("hf://someone/capsule")
    assert "\n" not in str(caught.value)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(AssetError, match="hf://someone/capsule") as caught:
        load_bundle("hf://someone/capsule")
    assert "\n" not in str(caught.value)


def test_a_wrong_token_is_explained(
    hosted: Hub, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    for attempt in (
        lambda: load_bundle("hf://someone/capsule"),
        lambda: hub.push(bundle, "someone/new"),
    ):
        with pytest.raises(AssetError, match="log in with") as caught:
            attempt()
        assert "hf_another" not in str(caught.value)


def test_models_shows_and_verifies_it(hosted: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "fetch", "hf://someone/capsule"]) == 0
    assert capsys.readouterr().out.startswith("path: ")
    assert run(["models", "show", "hf://someone/capsule"]) == 0
    assert "members[0].database: made" in capsys.readouterr().out
    assert run(["models", "verify", "hf://someone/capsule"]) == 0
    assert "capsule_entire.made.safetensors: ok" in capsys.readouterr().out


def test_a_bundle_of_the_hub_is_scored_by_its_graph(stand_in: Hub) -> None:
    default = default_bundle()
    assert default is not None
    files = {path.name: path.read_bytes() for path in default.iterdir()}
    stand_in.repositories["someone/default"] = [files]
    folder = load_networks([Path("hf://someone/default")])
    assert isinstance(folder, Path)
    assert ExportedSystem(folder).facts == load_bundle(default).facts
    stand_in.down = True  # what is there is not asked for again
    assert load_networks([Path("hf://someone/default")]) == folder


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("hf://a/b", HubName("a/b", None)),
        ("hf:/a/b", HubName("a/b", None)),
        ("hf://a/b.c-d@refs/pr/1", HubName("a/b.c-d", "refs/pr/1")),
        ("bundles/hf", None),
        ("hf", None),
    ],
)
def test_names_are_read(text: str, name: HubName | None) -> None:
    assert hub_name(text) == hub_name(Path(text)) == name
    if name is not None:
        assert hub_name(str(name)) == name


@pytest.mark.parametrize(
    "text",
    ["a", "a/b/c", "a/..", "../b", "a/b@../../x", "a/b@", "a/b c", "a/b\n", "-a/b", "a--b/c", ""],
)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no name on the Hub"):
        hub_name(f"hf://{text}")


def test_a_bundle_is_pushed_and_comes_back(
    stand_in: Hub, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (bundle / "notes.txt").write_text("mine")
    assert run(["bundle", "push", str(bundle), "me/faces", "--private"]) == 0
    assert "/me/faces/commit/" in capsys.readouterr().out
    assert stand_in.private == {"me/faces": True}
    files = stand_in.repositories["me/faces"][-1]
    (bundle / "notes.txt").unlink()
    assert set(files) == {path.name for path in bundle.iterdir()} | {".gitattributes"}
    assert "POST /api/validate-yaml" in stand_in.asked
    (loaded,) = load_bundle("hf://me/faces")
    assert loaded.name == "capsule_entire.made"
    # A second push replaces the networks of the first, and nothing else.
    stand_in.repositories["me/faces"] = [{"old.safetensors": b"x", "LICENSE": b"mine"}]
    assert run(["bundle", "push", str(bundle), "hf://me/faces"]) == 0
    files = stand_in.repositories["me/faces"][-1]
    assert set(files) == {path.name for path in bundle.iterdir()} | {"LICENSE"}


def test_a_bundle_goes_and_comes_by_the_names_that_the_hub_s_libraries_use(
    stand_in: Hub, bundle: Path, tmp_path: Path
) -> None:
    ours = Bundle.from_pretrained(bundle)
    assert "/me/faces/commit/" in ours.push_to_hub("me/faces", private=True)
    assert stand_in.private == {"me/faces": True}
    theirs = Bundle.from_pretrained("me/faces", revision="v1")
    assert [each.sha256 for each in theirs] == [each.sha256 for each in ours]
    with pytest.raises(AssetError, match="there is no such revision"):
        Bundle.from_pretrained("me/faces", revision="v9")
    with pytest.raises(AssetError, match="me/other is not on the Hub"):
        Bundle.from_pretrained("me/other")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["push", "nowhere", "me/faces"], "nowhere: no such file"),
        (["push", ".", "me/faces"], "holds no bundle.json"),
        (["push", "BUNDLE", "faces"], "is no name on the Hub"),
        (["push", "BUNDLE", "me/faces@v1"], "is no repository"),
        (["push", "BUNDLE"], "repository"),
        (["pull", "BUNDLE", "me/faces"], "bundle --help"),
    ],
)
def test_what_cannot_be_pushed(
    stand_in: Hub,
    bundle: Path,
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["bundle", *(str(bundle) if a == "BUNDLE" else a for a in arguments)]) != 0
    assert message in capsys.readouterr().err
    assert not stand_in.repositories


def test_an_altered_bundle_is_not_pushed(
    stand_in: Hub, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in bundle.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes() + b" " * (path.suffix != ".json"))
    assert run(["bundle", "push", str(tmp_path), "me/faces"]) == 1
    assert "SHA-256" in capsys.readouterr().err
    assert not stand_in.repositories
