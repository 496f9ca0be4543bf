"""What files say of where they come from, written by Pillow, PyAV and c2pa-python."""

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from detect_json import provenances, read_detect
from hypothesis import given
from hypothesis import strategies as st
from networks import member, xception
from PIL import Image, PngImagePlugin
from provenances import XMP, picture, signed, signer, tagged, tagged_video
from test_media_reader import sabotage  # noqa: F401 - a fixture
from test_report import Page

import deepregions
from deepregions.commands.cli import run
from deepregions.media import MediaReader, Sampling
from deepregions.media.frames import DEFAULT_LIMITS
from deepregions.media.origin import read_origin
from deepregions.media.provenance import Credentials, Provenance, clean, received
from deepregions.pipeline.origin_words import origin_facts, origin_line
from deepregions.weights.bundle import save_bundle


def asked(reader: MediaReader, *paths: Path) -> list[Provenance | None]:
    """What the sandbox says of files; each must give its frames all the same."""
    found = []
    for media in reader.open_all(paths, Sampling(count=3)):
        assert sum(len(batch) for batch in media.batches())
        found.append(media.provenance())
    return found


def one(reader: MediaReader, path: Path, content: bytes) -> Provenance:
    path.write_bytes(content)
    (found,) = asked(reader, path)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def reader() -> Iterator[MediaReader]:
    with MediaReader() as reader:
        yield reader


@pytest.fixture(scope="module")
def by() -> Any:
    pytest.importorskip("c2pa", reason="the extra c2pa is not installed")
    return signer()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_the_tags_of_photographs(reader: MediaReader, tmp_path: Path, kind: str) -> None:
    found = one(reader, tmp_path / f"a.{kind.lower()}", tagged(kind))
    assert found.camera == "ACME Phone 3"
    assert found.taken == "2026:05:04 03:02:01 +02:00"
    assert found.located
    assert found.orientation == 6 or kind == "AVIF"  # which Pillow writes as a property of AVIF's
    assert found.source_types == ("trainedAlgorithmicMedia",)
    png = ("Maker 1",) if kind == "PNG" else ()
    assert found.software == ("Adobe Photoshop 25.0", *png, "Tool & Co 2")
    assert found.generator == ("a face, Steps: 20, [2J Sampler: Euler" if png else "")
    assert found.signs == ()
    assert found.credentials is None


def test_what_stands_behind_a_png_s_pixels(reader: MediaReader, tmp_path: Path) -> None:
    content = tagged("PNG")
    end = content.index(b"IDAT") - 4
    tail = content.index(b"IEND") - 4
    pixels = content[end:tail]
    texts = content[33:end]
    moved = one(reader, tmp_path / "a.png", content[:33] + pixels + texts + content[tail:])
    assert moved == one(reader, tmp_path / "b.png", content)


@pytest.mark.parametrize(
    ("size", "signs"),
    [((48, 32), 0), ((32, 48), 0), ((160, 120), 0), ((48, 48), 1), ((160, 90), 1)],
)
def test_a_thumbnail_of_another_aspect_ratio(
    reader: MediaReader, tmp_path: Path, size: tuple[int, int], signs: int
) -> None:
    found = one(reader, tmp_path / "a.jpg", tagged("JPEG", size))
    assert len(found.signs) == signs
    if signs:
        assert f"{size[0]} x {size[1]}" in found.signs[0]


def test_two_jpeg_start_headers(reader: MediaReader, tmp_path: Path) -> None:
    picture().save(stream := io.BytesIO(), "JPEG")
    content = stream.getvalue()
    header = content[2 : 2 + 18]
    assert header.startswith(b"\xff\xe0\x00\x10JFIF\0")
    assert one(reader, tmp_path / "a.jpg", content).signs == ()
    sign = ("2 JPEG start headers, where one program writes one",)
    assert one(reader, tmp_path / "b.jpg", content[:20] + header + content[20:]).signs == sign


@pytest.mark.parametrize("kind", ["mp4", "mov", "matroska", "avi"])
def test_the_tags_of_videos(reader: MediaReader, tmp_path: Path, kind: str) -> None:
    found = one(reader, tmp_path / f"a.{kind}", tagged_video(kind))
    assert found.container
    assert "Lavf" in (found.encoder or found.software[0])  # AVI calls it software
    if kind != "avi":
        assert found.taken == "2026-05-04T03:02:01.000000Z"
        assert found.camera == "ACME Camcorder 3"
        assert found.software == ("CapCut 5",)
        assert found.located


def test_what_says_nothing(reader: MediaReader, tmp_path: Path) -> None:
    picture().save(stream := io.BytesIO(), "PNG")
    assert one(reader, tmp_path / "a.png", stream.getvalue()) == Provenance()


@pytest.mark.skipif(shutil.which("exiftool") is None, reason="exiftool is not here")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exiftool_reads_the_same(reader: MediaReader, tmp_path: Path, kind: str) -> None:
    found = one(reader, path := tmp_path / f"a.{kind.lower()}", tagged(kind))
    command = ["exiftool", "-j", "-n", str(path)]
    (told,) = json.loads(subprocess.check_output(command))
    assert found.camera == told["Model"]
    assert found.software[0] in (told["Software"], "Adobe Photoshop 25.0")
    assert found.software[-1] == told["CreatorTool"]
    assert found.orientation == told["Orientation"]
    assert told["DigitalSourceType"].endswith(found.source_types[0])
    assert ("GPSLatitude" in told) == found.located


@pytest.mark.skipif(shutil.which("exiftool") is None, reason="exiftool is not here")
def test_xmp_as_exiftool_writes_it(reader: MediaReader, tmp_path: Path) -> None:
    """It writes the type as an attribute, and Photoshop's history as a list."""
    picture().save(path := tmp_path / "a.jpg")
    value = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
    tags = [f"-XMP-iptcExt:DigitalSourceType={value}", "-XMP-xmpMM:HistorySoftwareAgent=Editor 9"]
    subprocess.run(["exiftool", "-q", *tags, str(path)], check=True)
    found = one(reader, path, path.read_bytes())
    assert found.source_types == ("compositeWithTrainedAlgorithmicMedia",)
    assert found.software == ("Editor 9",)


KINDS = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "TIFF": "image/tiff",
    "GIF": "image/gif",
    "AVIF": "image/avif",
    "mp4": "video/mp4",
}


@pytest.mark.parametrize("kind", KINDS)
def test_credentials_verify_until_a_byte_is_changed(
    reader: MediaReader, tmp_path: Path, by: Any, kind: str
) -> None:
    content = tagged_video() if kind == "mp4" else tagged(kind)
    content = signed(content, KINDS[kind], by)
    found = one(reader, tmp_path / f"a.{kind.lower()}", content).credentials
    assert found == Credentials(
        "valid",
        issuer="The Newsroom",
        common_name="Ann <b>Editor</b>",
        generator="tester 1.2",
        actions=("c2pa.created (Generator 3)",),
        source_types=("trainedAlgorithmicMedia",),
    )
    if kind in ("JPEG", "mp4", "AVIF"):
        changed = bytearray(content)
        pixels = content.index(b"mdat") + 60 if kind != "JPEG" else len(content) - 300
        changed[pixels] ^= 1
        found = one(reader, tmp_path / f"b.{kind.lower()}", bytes(changed)).credentials
        assert found is not None
        assert found.state == "broken"
        assert any("Hash.mismatch" in code for code in found.problems)


def test_declarations_that_were_changed(reader: MediaReader, tmp_path: Path, by: Any) -> None:
    content = signed(tagged("JPEG"), "image/jpeg", by)
    changed = content.replace(b"Generator", b"Ganerator")
    found = one(reader, tmp_path / "a.jpg", changed).credentials
    assert found is not None
    assert found.state == "broken"
    assert found.problems == ("assertion.hashedURI.mismatch",)


def test_credentials_that_are_elsewhere_are_not_fetched(
    reader: MediaReader, tmp_path: Path, by: Any
) -> None:
    content = signed(tagged("JPEG"), "image/jpeg", by, remote="http://127.0.0.1:9/manifest")
    found = one(reader, tmp_path / "a.jpg", content)
    assert found.remote == "http://127.0.0.1:9/manifest"
    assert found.credentials is None


def test_without_the_extra(tmp_path: Path, by: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from deepregions.media import sandbox

    start = sandbox._START.replace("from deep", "sys.modules['c2pa'] = None; from deep")
    monkeypatch.setattr(sandbox, "_START", start)
    with MediaReader() as reader:
        found = one(reader, tmp_path / "a.jpg", signed(tagged("JPEG"), "image/jpeg", by))
    assert found.credentials == Credentials(problems=("install deepregions[c2pa] to read them",))


@pytest.mark.usefixtures("sabotage")
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("fault", ["segfault", "abort", "bug", "memory", "rubbish"])
def test_what_reads_credentials_may_die(tmp_path: Path, by: Any, fault: str) -> None:
    paths = [tmp_path / f"credentials-{fault}.jpg", tmp_path / "next.jpg"]
    for path in paths:
        path.write_bytes(signed(tagged("JPEG"), "image/jpeg", by))
    with MediaReader() as reader:
        died, following = asked(reader, *paths)
    assert died is not None
    assert died.camera == "ACME Phone 3"
    assert died.credentials is not None
    assert died.credentials.state == "unread"
    assert following is not None
    assert following.credentials is not None
    assert following.credentials.state == "valid"


def test_what_cannot_be_opened_says_nothing(tmp_path: Path) -> None:
    (path := tmp_path / "a.jpg").write_bytes(tagged("JPEG")[:500])
    with path.open("rb") as file:
        assert read_origin(path, file, DEFAULT_LIMITS).camera in ("", "ACME Phone 3")


_anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=30) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=40,
)


@given(st.dictionaries(st.sampled_from([*vars(Provenance()), *vars(Credentials())]), _anything))
def test_whatever_a_process_sends_becomes_a_record(said: dict[str, Any]) -> None:
    credentials = received(Credentials, said)
    found = received(Provenance, said, credentials=credentials).to_dict()
    json.dumps(found, allow_nan=False)
    for value in [*found.values(), *found["credentials"].values()]:
        for text in value if isinstance(value, list) else [value]:
            assert not isinstance(text, str) or (text.isprintable() and len(text) <= 300)
    assert credentials.state in ("trusted", "valid", "broken", "unread")


def test_a_text_is_one_short_line() -> None:
    assert clean("a\n\x1b[2J  b\u202e c\udcff") == "a [2J b c"
    assert clean("é" * 400) == "é" * 299 + "…"
    assert clean(b"caf\xe9") == "caf\ufffd"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    save_bundle([member(xception(2.0))], path := tmp_path_factory.mktemp("bundles") / "one")
    return path


def test_no_score_depends_on_it(portrait: Path, bundle: Path, tmp_path: Path, by: Any) -> None:
    """The same pixels, with and without tags and credentials, get the same answer."""
    with Image.open(portrait) as image:
        pixels = image.convert("RGB")
    pixels.save(plain := tmp_path / "plain.png")
    text = PngImagePlugin.PngInfo()
    text.add_text("Software", "Stable Diffusion")
    pixels.save(stream := io.BytesIO(), "PNG", pnginfo=text, xmp=XMP)
    (said := tmp_path / "said.png").write_bytes(signed(stream.getvalue(), "image/png", by))
    with deepregions.load(bundle, landmarks="dlib-hog") as detector:
        without, told, memory = detector([plain, said, pixels])
    assert without.status == "ok"
    assert without.answer == told.answer == memory.answer
    for one_, other in zip(without.people, told.people, strict=True):
        assert one_ == other
    assert without.faces == told.faces
    assert (without.log_odds, without.warnings) == (told.log_odds, told.warnings)
    assert without.provenance == Provenance()
    assert memory.provenance is None
    assert told.provenance is not None
    assert told.provenance.software == ("Stable Diffusion",)
    assert told.provenance.credentials is not None
    assert told.provenance.credentials.state == "valid"
    page = "".join(Page(told.to_html()).text)
    assert "Where the file comes from" in page
    assert "signed by Ann <b>Editor</b> (The Newsroom); file" in page  # as it stands, no markup
    assert "The file says nothing about it" in without.to_html()
    assert "Where the file comes from" not in memory.to_html()


def test_the_command_tells_it(
    portrait: Path, bundle: Path, tmp_path: Path, by: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(portrait, plain := tmp_path / "plain.png")
    content = bytearray(signed(tagged("JPEG"), "image/jpeg", by))
    content[-300] ^= 1
    (broken := tmp_path / "broken.jpg").write_bytes(content)
    (tmp_path / "edited.jpg").write_bytes(tagged("JPEG"))
    command = ["detect", str(plain), str(broken), str(tmp_path / "edited.jpg")]
    command += ["--bundle", str(bundle), "--landmarks", "dlib-hog"]
    assert run(command) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "comes from" in line]
    assert len(lines) == 2
    start = "  Where the file comes from: "
    assert lines[0].startswith(f"{start}content credentials: broken: the file was changed after")
    assert lines[1] == (
        f"{start}the file declares itself made by generative AI (trainedAlgorithmicMedia); "
        "it names Adobe Photoshop 25.0 as its software"
    )
    assert run([*command, "--json"]) == 0
    printed = [read_detect(line)["provenance"] for line in capsys.readouterr().out.splitlines()]
    assert printed[0] == Provenance().to_dict()
    assert printed[1]["credentials"]["state"] == "broken"
    assert printed[2]["camera"] == "ACME Phone 3"


@given(provenances())
def test_words_are_lines(provenance: Provenance) -> None:
    told = [origin_line(provenance), *(text for _, text in origin_facts(provenance))]
    assert all(text.isprintable() for text in told)


SIGNED = Credentials("valid", issuer="Org", common_name="Ann", source_types=("digitalCapture",))


@pytest.mark.parametrize(
    ("credentials", "words"),
    [
        (SIGNED, "signed by Ann (Org); file and signature match, but nobody checked who that is"),
        (
            replace(SIGNED, state="trusted"),
            "signed by Ann (Org), who is on a list of trusted signers; file and signature match",
        ),
        (
            replace(SIGNED, state="broken", problems=("assertion.dataHash.mismatch",)),
            "broken: the file was changed after it was signed (assertion.dataHash.mismatch); "
            "they name Ann (Org) as their signer",
        ),
        (
            replace(SIGNED, state="broken", problems=("claimSignature.mismatch",)),
            "broken: the signature does not match (claimSignature.mismatch); "
            "they name Ann (Org) as their signer",
        ),
        (
            Credentials(problems=("install deepregions[c2pa] to read them",)),
            "there are some; install deepregions[c2pa] to read them",
        ),
    ],
)
def test_what_is_said_of_credentials(credentials: Credentials, words: str) -> None:
    provenance = Provenance(credentials=credentials)
    assert dict(origin_facts(provenance))["content credentials"] == words
    assert origin_line(provenance) == f"content credentials: {words}"


def test_the_terminal_tells_what_is_declared_where() -> None:
    made = ("trainedAlgorithmicMedia",)
    told = origin_line(
        Provenance(source_types=made, credentials=replace(SIGNED, source_types=made))
    )
    words = "made by generative AI (trainedAlgorithmicMedia)"
    assert told.endswith(f"; they declare the file {words}; the file declares itself {words}")


def test_a_camera_s_firmware_is_no_news() -> None:
    assert not origin_line(Provenance(camera="ACME", software=("Ver.1.0",), located=True))
    assert not origin_line(Provenance(source_types=("digitalCapture",)))
    assert not origin_line(None)
