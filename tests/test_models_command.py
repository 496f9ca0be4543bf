"""``deepregions models`` through the real command line."""

import hashlib
import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from data_helpers import INFO, record
from drawn_faces import draw_face
from networks import member, xception

from deepregions.commands.cli import run
from deepregions.data.store import create_store, encode_image
from deepregions.detectors import Capsule
from deepregions.errors import UsageError
from deepregions.faces.finders import YUNET
from deepregions.files import sha256
from deepregions.system import TrainedNetwork
from deepregions.types import Region
from deepregions.weights import catalogue as registry
from deepregions.weights.bundle import save_bundle
from deepregions.weights.bundle_folder import (
    default_bundle,
    find_bundle,
    find_bundles,
    models_folders,
)
from deepregions.weights.manifest import GRAPH

CONTENT = bytes(range(256)) * 4000
DIGEST = hashlib.sha256(CONTENT).hexdigest()
SOURCE = {"file": "Capsule_UADFV_eyes.pt", "project": "BiDA", "licence": "not stated"}


@pytest.fixture(scope="module")
def master(tmp_path_factory):
    """A folder with a bundle of two networks, and one of one a folder further down."""
    folder = tmp_path_factory.mktemp("bundles")
    capsule, validation = Capsule(size=64).eval(), {"frame_auc": 0.75}
    pair = [
        TrainedNetwork(capsule, Region.EYES, "uadfv", "masked", {"source": SOURCE}),
        TrainedNetwork(capsule, Region.NOSE, "uadfv", "tight", {"validation": validation}),
    ]
    save_bundle(pair, folder / "pair")
    save_bundle(
        [TrainedNetwork(xception(), Region.EYES, "ffpp", "masked", {})], folder / "more" / "one"
    )
    (folder / "notes").mkdir()
    return folder


@pytest.fixture
def folder(master, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DEEPREGIONS_MODELS", raising=False)
    monkeypatch.delenv("DEEPREGIONS_OFFLINE", raising=False)
    monkeypatch.setenv("DEEPREGIONS_CACHE", str(tmp_path / "cache"))
    return Path(shutil.copytree(master, tmp_path / "mine"))


def output(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    assert run(["models", *arguments]) == code
    return capsys.readouterr().out


def test_list_shows_what_is_here_and_what_others_offer(folder, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    printed = output(capsys, "list", "--dir", "mine")
    (row,) = [line.split() for line in printed.splitlines() if line.split()[:1] == ["pair"]]
    assert row[1:6] == ["2", "capsule", "eyes,", "nose", "uadfv"]
    assert "more/one" in printed
    for entry in registry.entries():
        assert entry.name in printed
    listed = json.loads(output(capsys, "list", "--dir", "mine", "--json"))
    assert [each["bundle"] for each in listed["bundles"]] == ["more/one", "pair"]
    assert [each["name"] for each in listed["registry"]] == [e.name for e in registry.entries()]
    assert {each["cached"] for each in listed["registry"]} == {None}


def test_where_bundles_are_looked_for(folder, capsys, monkeypatch):
    monkeypatch.setattr("deepregions.weights.bundle_folder.default_bundle", lambda: None)
    assert "no bundles in ./models or ./bundles" in output(capsys, "list")
    coming = folder / "more" / "one"
    monkeypatch.setattr("deepregions.weights.bundle_folder.default_bundle", lambda: coming)
    shutil.copytree("mine/pair", "bundles/here")
    assert [each.name for each in find_bundles(models_folders())] == ["here"]
    listed = json.loads(output(capsys, "list", "--json"))["bundles"]
    assert [each["bundle"] for each in listed] == ["one", "here"]  # what comes along is first
    monkeypatch.setenv("DEEPREGIONS_MODELS", "mine")
    assert [each.name for each in find_bundles(models_folders())] == ["more/one", "pair"]
    assert [each.name for each in find_bundles(models_folders(Path("bundles/here")))] == ["here"]
    with pytest.raises(UsageError, match="nowhere is not a folder"):
        models_folders(Path("nowhere"))


@pytest.mark.parametrize("name", ["pair", "mine/pair", "capsule_nose.uadfv"])
def test_show_says_what_a_bundle_is(folder, capsys, name):
    printed = output(capsys, "show", name, "--dir", "mine")
    file = folder / "pair" / "capsule_eyes.uadfv.safetensors"
    for line in (
        f"members[0].sha256: {sha256(file)}",
        "members[0].region: eyes",
        "members[0].database: uadfv",
        "members[0].settings.size: 64",
        "members[0].training.source.licence: not stated",
        "members[1].layout: tight",
        "members[1].training.validation.frame_auc: 0.75",
    ):
        assert line in printed.splitlines()
    shown = json.loads(output(capsys, "show", name, "--dir", "mine", "--json"))
    assert shown["members"] == json.loads((folder / "pair" / "bundle.json").read_text())["members"]


def test_show_says_what_the_registry_knows(folder, capsys):
    printed = output(capsys, "show", "dsp-fwa")
    assert "license: CC-BY-NC-SA-4.0" in printed
    assert "citation: Y. Li, S. Lyu." in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show"], "name"),
        (["fetch"], "name"),
        (["show", "pear", "--dir", "mine"], "no bundle pear (bundles: more/one, pair)"),
        (["show", "pear"], "none in models or bundles"),
        (["list", "--dir", "nowhere"], "nowhere is not a folder"),
        (["verify", "--dir", "mine/notes"], "no bundle to verify"),
        (["fetch", "pear"], "the registry has no 'pear'"),
        (["fetch", "bida"], "cannot be fetched by a program"),
        (["fetch", "vgg19-imagenet", "--sha256", "0" * 64], "begins with dcbb9e9d"),
        (["lst"], "did you mean list"),
        (["show", "hf://a"], "is no name on the Hub"),
    ],
)
def test_wrong_usage_is_one_line(folder, arguments, message, capsys):
    assert run(["models", *arguments]) != 0
    printed = capsys.readouterr()
    assert not printed.out
    (line,) = printed.err.splitlines()
    assert message in line


def test_the_bundle_that_comes_along_has_a_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["models", "show", "default"]) == 0
    assert "checkpoints/default" in capsys.readouterr().out


def test_two_bundles_of_one_name_are_told_apart_by_path(folder):
    shutil.copytree(folder / "pair", folder / "copies" / "pair")
    with pytest.raises(UsageError, match=r"2 bundles pair.*mine/copies/pair, .*mine/pair"):
        find_bundle("pair", [folder])
    assert find_bundle(str(folder / "pair"), [folder]).path == folder / "pair"


def test_verify_names_every_file_that_is_wrong_and_goes_on(folder, capsys):
    assert sorted(output(capsys, "verify", "mine").splitlines()) == [
        "mine/more/one/xception_eyes.ffpp.safetensors: ok",
        "mine/pair/capsule_eyes.uadfv.safetensors: ok",
        "mine/pair/capsule_nose.uadfv.safetensors: ok",
    ]
    file = folder / "pair" / "capsule_eyes.uadfv.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    manifest = json.loads((folder / "more" / "one" / "bundle.json").read_text())
    manifest["members"][0]["class"] = "Capsule"  # right digest, wrong network
    manifest["members"] += [manifest["members"][0] | {"file": "gone.safetensors"}]
    (folder / "more" / "one" / "bundle.json").write_text(json.dumps(manifest))
    (folder / "broken").mkdir()
    (folder / "broken" / "bundle.json").write_text("{")
    results = json.loads(output(capsys, "verify", "mine", "--json", code=1))
    problems = {Path(each["file"]).name: each["problem"] for each in results}
    assert "SHA-256 differs" in problems["capsule_eyes.uadfv.safetensors"]
    assert problems["capsule_nose.uadfv.safetensors"] == ""
    assert "cannot be built" in problems["xception_eyes.ffpp.safetensors"]
    assert "is missing" in problems["gone.safetensors"]
    assert "cannot be read" in problems["bundle.json"]
    assert [each["ok"] for each in results] == [not each["problem"] for each in results]
    assert "SHA-256 differs" in output(capsys, "verify", "pair", "--dir", "mine", code=1)
    listed = output(capsys, "list", "--dir", "mine")
    assert "broken" in listed


def test_a_strangers_bundle_cannot_write_to_the_terminal(folder, capsys):
    text = (folder / "pair" / "bundle.json").read_text()
    (folder / "pair" / "bundle.json").write_text(text.replace("uadfv", "\\u001b[31m[bold]x"))
    output(capsys, "list", "--dir", "mine")
    assert run(["models", "show", "pair", "--dir=mine"]) == 1
    printed = capsys.readouterr().err
    assert "\x1b" not in printed
    assert r"\x1b[31m[bold]x" in printed


class Server(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def offered(tmp_path, monkeypatch):
    """A registry with one entry, whose digest is not known, on a server of this machine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        values = json.loads(registry.registry_file().read_text())
        (entry,) = [each for each in values["entries"] if each["name"] == "yunet"]
        entry |= {"name": "thing", "file": "thing.bin", "sha256": None, "size": len(CONTENT)}
        entry["url"] = f"http://127.0.0.1:{running.server_port}/thing.bin"
        values["entries"] = [entry]
        (tmp_path / "registry.json").write_text(json.dumps(values))
        monkeypatch.setattr(registry, "registry_file", lambda: tmp_path / "registry.json")
        yield
        running.shutdown()


def test_fetch_puts_a_verified_file_into_the_cache_or_a_folder(folder, offered, tmp_path, capsys):
    printed = output(capsys, "fetch", "thing", "--sha256", DIGEST)
    assert f"path: {tmp_path / 'cache' / 'thing.bin'}" in printed.splitlines()
    assert (tmp_path / "cache" / "thing.bin").read_bytes() == CONTENT
    assert "license: Apache-2.0" in printed
    assert "is here" in output(capsys, "list")
    fetched = output(capsys, "fetch", "thing", "--sha256", DIGEST, "--dir", "other", "--json")
    assert json.loads(fetched)["path"] == "other/thing.bin"
    assert not capsys.readouterr().err
    assert Path("other/thing.bin").read_bytes() == CONTENT
    assert run(["models", "fetch", "thing", "--dir", "unknown"]) == 0
    unchecked = capsys.readouterr()
    assert f"sha256: {DIGEST}" in unchecked.out.splitlines()
    assert "came unchecked" in unchecked.err and unchecked.err.count("\n") == 1


def test_fetch_refuses_what_has_another_digest(folder, offered, tmp_path, capsys):
    assert run(["models", "fetch", "thing", "--sha256", "0" * 64]) == 1
    assert f"its SHA-256 is {DIGEST[:12]}" in capsys.readouterr().err
    assert not list((tmp_path / "cache").iterdir())


def test_fetch_offline_finds_what_is_cached(folder, shared, monkeypatch, capsys):
    monkeypatch.setenv("DEEPREGIONS_OFFLINE", "1")
    assert run(["models", "fetch", "yunet"]) == 1
    assert "DEEPREGIONS_OFFLINE" in capsys.readouterr().err
    monkeypatch.setenv("DEEPREGIONS_CACHE", str(shared / "weights"))
    assert str(shared / "weights" / YUNET.name) in output(capsys, "fetch", "yunet")


@pytest.mark.parametrize(
    ("bias", "problem"), [(9.0, "all near 1"), (-9.0, "all near 0"), (float("nan"), "not numbers")]
)
def test_verify_tells_networks_that_answer_all_the_same(bias, problem, tmp_path, capsys):
    rng = np.random.default_rng(0)
    faces = []
    for number in range(4):
        picture, landmarks = draw_face(rng, 128)
        image = encode_image(torch.from_numpy(picture).permute(2, 0, 1))
        faces.append(record(number, image=image, landmarks=landmarks))
    create_store(tmp_path / "store", INFO, faces)
    save_bundle([member(xception(bias))], tmp_path / "one")
    names = ["verify", str(tmp_path / "one"), "--faces", str(tmp_path / "store")]
    assert problem in output(capsys, *names, code=1)
    output(capsys, *names[:2])  # its files are as they were written


def test_robustness_is_measured_told_and_kept(tmp_path, capsys, caplog):
    rng = np.random.default_rng(0)
    faces = []
    for number in range(8):
        picture, landmarks = draw_face(rng, 160)
        image = encode_image(torch.from_numpy(picture).permute(2, 0, 1))
        who = {"identities": (f"p{number}",), "video": f"v{number}", "split": "test"}
        faces.append(record(number, image=image, landmarks=landmarks, **who))
    create_store(tmp_path / "store", INFO, faces)
    path = tmp_path / "one"
    save_bundle([member(Capsule(size=64).eval())], path)
    (path / GRAPH).write_bytes(b"of the version before")
    assert run(["models", "robustness", str(path), "--store", str(tmp_path / "store")]) == 0
    printed = capsys.readouterr()
    assert "as they are" in printed.out and f"bundle: {path}" in printed.out
    assert "no interval" in printed.err and "--into-bundle" in caplog.text
    curves = json.loads((path / "bundle.json").read_text())["degradation"]
    assert {each["alteration"] for each in curves} > {"", "jpeg"}
    told = [line.split() for line in printed.out.splitlines() if line.startswith("  jpeg")]
    assert [f"{each['auc']:.3f}" for each in curves if each["alteration"] == "jpeg"] == [
        row[2] for row in told
    ]


@pytest.mark.parametrize("where", ["bundle", "store"])
def test_robustness_of_what_is_not_there(where, folder, capsys):
    there = {"bundle": "mine/pair", "store": "."} | {where: "nowhere"}
    assert run(["models", "robustness", there["bundle"], "--store", there["store"]]) != 0
    assert "nowhere" in capsys.readouterr().err


def test_recorded_answers_are_kept(tmp_path, capsys):
    pytest.importorskip("skimage.data", reason="the portrait is in scikit-image's wheel")
    path = tmp_path / "copied"
    shutil.copytree(default_bundle(), path, ignore=shutil.ignore_patterns(GRAPH))
    kept = (path / "bundle.json").read_text()
    manifest = json.loads(kept)
    manifest["answers"]["portrait"] += 1
    (path / "bundle.json").write_text(json.dumps(manifest))
    assert "log-odds of portrait" in output(capsys, "verify", str(path), "--faces", code=1)
    output(capsys, "verify", str(path), "--faces", "--record")
    recorded = json.loads((path / "bundle.json").read_text())["answers"]
    assert recorded == pytest.approx(json.loads(kept)["answers"], abs=1e-3)
