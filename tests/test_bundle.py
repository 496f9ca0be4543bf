import inspect
import json
import os
import pickle
import shutil
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import SIZE, dsp_fwa, member, xception

from deepregions.detectors import Capsule
from deepregions.errors import BundleError, UsageError
from deepregions.types import Region
from deepregions.weights.bundle import (
    check_bundle,
    check_settings,
    known_detectors,
    load_bundle,
    save_bundle,
    write_facts,
)
from deepregions.weights.manifest import (
    VERSION,
    BundleFacts,
    Degradation,
    OperatingPoint,
    read_manifest,
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundles") / "two"
    save_bundle([member(xception(), Region.EYES), member(dsp_fwa())], path)
    return path


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle, tmp_path / "copy"))


def manifest_of(path: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((path / "bundle.json").read_text())
    return manifest


def edit(path: Path, **changes: object) -> None:
    (path / "bundle.json").write_text(json.dumps(manifest_of(path) | changes))


def edit_member(path: Path, **changes: object) -> None:
    first, *rest = manifest_of(path)["members"]
    edit(path, members=[first | changes, *rest])


def test_what_is_loaded_scores_as_what_was_saved(tmp_path: Path) -> None:
    network = xception()
    save_bundle([member(network, Region.NOSE, "ffpp")], tmp_path / "one")
    (loaded,) = load_bundle(tmp_path / "one")
    crops = torch.rand(2, 3, SIZE, SIZE)
    with torch.no_grad():
        torch.testing.assert_close(loaded.detector(crops), network(crops), rtol=0, atol=0)
    assert (loaded.region, loaded.database, loaded.layout) == (Region.NOSE, "ffpp", "masked")
    assert loaded.training == {"note": "made by a test"}
    assert not loaded.detector.training


def test_colleagues_can_read_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()  # by the umask
    save_bundle([member(xception())], tmp_path / "bundle")
    modes = {path.stat().st_mode for path in (tmp_path / "bundle").iterdir()}
    assert modes == {(tmp_path / "file").stat().st_mode}


def test_a_database_may_have_any_name_in_any_language(tmp_path: Path) -> None:
    members = [member(xception(), database="naïve data"), member(dsp_fwa(), database="データ")]
    save_bundle(members, tmp_path / "one")
    assert [each.database for each in load_bundle(tmp_path / "one")] == ["naïve data", "データ"]
    assert len(list((tmp_path / "one").iterdir())) == 4  # manifest, card and two networks


@pytest.mark.parametrize(
    "name",
    ["my/own", "..", "/../../escaped", "a\\b", "two\nlines", "\x1b[2J", "x" * 300, "", None, 7],
)
def test_names_never_become_paths_nor_break_lines(copy: Path, tmp_path: Path, name: Any) -> None:
    """Faults B5 and N2: names stand in file names, tables and on the terminal."""
    for key in ("database", "name"):
        edit_member(copy, **{key: name})
        with pytest.raises(BundleError, match="not a plain name") as caught:
            read_manifest(copy)
        assert "\n" not in str(caught.value)
        edit_member(copy, name="x", database="made")
    if isinstance(name, str):
        with pytest.raises(UsageError, match="not a plain name"):
            save_bundle([member(xception(), database=name)], tmp_path / "one")
    assert not (tmp_path / "one").exists()


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("x", {"size": 64.5}),
        ("x", {"size": float("nan")}),
        ("x", {"size": 10**9}),
        ("x", {"size": True}),
        ("x", {"bn_eps": "x"}),
        ("x", {"bn_eps": -1.0}),
        ("x", {"bn_momentum": 1e999}),
        ("x", {"padding": ["same"]}),
        ("x", {"backbone_file": "/etc/passwd"}),
        ("x", {"pretrained": True}),
        ("x", {"pretrained": False}),
        ("x", {"optimizer": "os.system"}),
        ("c", {"classes": 10**10}),
        ("c", {"frozen": False}),
    ],
)
def test_settings_of_a_stranger_open_nothing_and_are_in_range(
    tmp_path: Path, kind: str, change: dict[str, Any]
) -> None:
    """Fault N5."""
    detector = xception() if kind == "x" else Capsule(size=64).eval()
    save_bundle([member(detector)], tmp_path / "one")
    edit_member(tmp_path / "one", settings=detector.settings() | change)
    opened: list[object] = []
    watched.append(opened)
    try:
        with pytest.raises(BundleError) as caught:
            load_bundle(tmp_path / "one")
    finally:
        watched.clear()
    assert "\n" not in str(caught.value)
    assert not [each for each in opened if each == "socket" or str(each) == "/etc/passwd"]


watched: list[list[object]] = []


def _watch(event: str, arguments: Any) -> None:
    for opened in watched:
        if event == "open":
            opened.append(arguments[0])
        elif event in ("socket.connect", "socket.getaddrinfo"):
            opened.append("socket")


sys.addaudithook(_watch)


def test_what_is_a_setting_is_known_of_every_detector() -> None:
    """A new argument of a detector must shape the network, or be refused in a bundle."""
    harmless = {"frozen", "trained", "frozen_stages"}  # refused once the network is built
    for kind in known_detectors().values():
        stored = set(kind().settings())
        check_settings(kind, kind().settings())
        for name in set(inspect.signature(kind).parameters) - stored - harmless:
            with pytest.raises(ValueError, match="no setting"):
                check_settings(kind, {name: True})


def test_many_entries_of_one_file_are_refused_at_once(copy: Path) -> None:
    edit(copy, members=manifest_of(copy)["members"][:1] * 300)
    start = time.monotonic()
    with pytest.raises(BundleError, match="one file"):
        load_bundle(copy)
    assert time.monotonic() - start < 5


def test_half_precision_halves_the_file_and_loads_as_float32(tmp_path: Path) -> None:
    network = xception()
    save_bundle([member(network)], tmp_path / "full")
    save_bundle([member(network)], tmp_path / "half", half=True)
    sizes = [next((tmp_path / n).glob("*.safetensors")).stat().st_size for n in ("half", "full")]
    assert sizes[0] < 0.51 * sizes[1]
    (loaded,) = load_bundle(tmp_path / "half")
    assert {value.dtype for value in loaded.detector.parameters()} == {torch.float32}
    crops = torch.rand(2, 3, SIZE, SIZE)
    with torch.no_grad():
        torch.testing.assert_close(loaded.detector(crops), network(crops), rtol=0.01, atol=0.01)
    assert manifest_of(tmp_path / "half")["members"][0]["precision"] == "float16"


FACTS = BundleFacts(
    "drawn",
    (OperatingPoint("1 % false alarms", 0.5, "video", "toy, part val", 0.01, None),),
    {"model": {"size": 64}},
    ("0123456789abcdef",),
    "Knows no profile views.",
    (Degradation("", 0.91), Degradation("jpeg", 0.75, 50, 50, 0.06, 30, worse=True)),
    {"portrait": -1.5},
)


def test_facts_come_back_and_stand_in_the_card(tmp_path: Path) -> None:
    save_bundle([member(xception())], tmp_path / "one", facts=FACTS)
    assert load_bundle(tmp_path / "one").facts == FACTS
    card = (tmp_path / "one" / "README.md").read_text()
    for said in ("computer-drawn", "1 % false alarms", "1.00%", "no profile", "jpeg 50", "0.7500"):
        assert said in card
    other = replace(FACTS, limits="", people=())
    write_facts(tmp_path / "one", other)
    assert load_bundle(tmp_path / "one").facts == other
    assert not any(check_bundle(tmp_path / "one").values())
    edit(tmp_path / "one", version=3)
    assert load_bundle(tmp_path / "one").facts == BundleFacts()  # a key of a later version
    together = BundleFacts.together([BundleFacts("real", people=("ab" * 8,)), FACTS])
    assert (together.trained_on_kind, len(together.people)) == ("drawn", 2)


POINT = {"name": "x", "threshold": 1, "level": "frame", "found_on": "x"}


@pytest.mark.parametrize(
    "change",
    [
        {"trained_on_kind": "dreams"},
        {"operating_points": [{"name": "x"}]},
        {"operating_points": [POINT | {"threshold": "1"}]},
        {"operating_points": 7},
        {"recipe": "x"},
        {"people": ["Ada Lovelace"]},
        {"limits": 7},
        {"degradation": {"jpeg": 7}},
        {"operating_points": [POINT | {"false_positive_interval": [0.1]}]},
        {"operating_points": [POINT | {"people": 1.5}]},
    ],
)
def test_wrong_facts_are_one_clear_error(copy: Path, change: dict[str, object]) -> None:
    edit(copy, **change)
    with pytest.raises(BundleError, match="not as a bundle's should be"):
        load_bundle(copy)
    assert any(check_bundle(copy).values())


def test_a_bundle_replaces_a_bundle_but_nothing_else(tmp_path: Path) -> None:
    save_bundle([member(xception())], tmp_path / "x")
    save_bundle([member(dsp_fwa())], tmp_path / "x")
    assert [each.name for each in load_bundle(tmp_path / "x")] == ["dsp-fwa_entire.made"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("precious")
    with pytest.raises(UsageError, match="is not a bundle"):
        save_bundle([member(xception())], tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "precious"


def test_nothing_is_left_of_a_bundle_that_could_not_be_written(tmp_path: Path) -> None:
    bad = member(xception())
    bad.training["auc"] = float("nan")  # no JSON
    with pytest.raises(ValueError, match="JSON"):
        save_bundle([bad], tmp_path / "x")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": "other"}, "not a bundle's manifest"),
        ({"version": VERSION + 1}, rf"version {VERSION + 1};.*\(update deepregions\)"),
        *(({"version": no}, "is of version") for no in (0, -1, "2", None, 1.5, [1])),
        ({"members": []}, "names no network"),
        ({"members": [{}]}, "not as a bundle's should be"),
        ({"members": ["x"]}, "not as a bundle's should be"),
    ],
)
def test_a_wrong_manifest_is_one_clear_error(
    copy: Path, changes: dict[str, object], message: str
) -> None:
    edit(copy, **changes)
    with pytest.raises(BundleError, match=message):
        load_bundle(copy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class": "System"}, "unknown network.*Capsule"),
        ({"class": "RegionDetector"}, "cannot be built|unknown network"),
        ({"class": "__builtins__"}, "unknown network"),
        ({"settings": {"size": 4}}, "cannot be built"),
        ({"settings": {"sise": 64}}, "cannot be built"),
        ({"class": "DSPFWA", "settings": {"size": 64, "pyramid": "adaptive"}}, "does not fit"),
        ({"region": "ear"}, "ear"),
        ({"resample": "lanczos"}, "'lanczos', not one of bilinear, nearest"),
        ({"layout": "loose"}, "'loose', not one of masked, tight, context"),
        ({"file": "../../etc/passwd"}, "not a safetensors file beside it"),
        ({"file": "other.safetensors"}, "is missing"),
        ({"sha256": "0" * 64}, "SHA-256"),
    ],
)
def test_a_wrong_member_is_one_clear_error(
    copy: Path, changes: dict[str, object], message: str
) -> None:
    edit_member(copy, **changes)
    with pytest.raises(BundleError, match=message):
        load_bundle(copy)


def test_missing_truncated_and_altered_files(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is not there"):
        load_bundle(tmp_path / "nowhere")
    with pytest.raises(BundleError, match=r"holds no bundle\.json"):
        load_bundle(tmp_path)
    file = next(copy.glob("xception*.safetensors"))
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(BundleError, match="SHA-256"):
        load_bundle(copy)
    file.unlink()
    with pytest.raises(BundleError, match="is missing"):
        load_bundle(copy)
    for content in (b"\x80\x04\x95", b"[" * 100_000):
        (copy / "bundle.json").write_bytes(content)
        with pytest.raises(BundleError, match="cannot be read"):
            load_bundle(copy)


def test_a_pickle_in_disguise_is_never_unpickled(copy: Path) -> None:
    from deepregions.files import sha256

    class Harm:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {copy / 'harmed'}",)

    file = next(copy.glob("xception*.safetensors"))
    for write in (partial(torch.save, Harm()), lambda path: path.write_bytes(pickle.dumps(Harm()))):
        write(file)
        edit_member(copy, sha256=sha256(file))
        with pytest.raises(BundleError, match="does not fit"):
            load_bundle(copy)
        assert not (copy / "harmed").exists()
