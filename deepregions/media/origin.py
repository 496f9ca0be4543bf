"""What a file says of where it comes from, read from its own tags, without decoding its pixels."""

import re
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from html import unescape
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import av
from PIL import ExifTags, Image

from deepregions.errors import UnreadableError, UnsupportedError
from deepregions.media.frames import Limits
from deepregions.media.images import opened_image
from deepregions.media.kinds import HEAD, kind_of
from deepregions.media.provenance import Credentials, Provenance, clean
from deepregions.media.videos import CONTAINERS, refuse

_PART, _PARTS = 1 << 20, 100_000  # bytes of a part of a file that are looked at, and parts
_DCF = (160, 120)  # every camera's thumbnail, by its standard, whatever the picture's aspect ratio
_C2PA = (b"caBX", b"C2PA", b"C2PA_GIF")  # kinds of parts of PNG, WebP and GIF
_C2PA_BOX = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")  # an MP4's ``uuid`` box
_C2PA_TAG = 0xCD41  # in TIFF
_JUMBF = b"jumdc2pa"  # in a JPEG's segment
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_LOOKED_AT = (*_TEXTS, b"eXIf", b"uuid")
_XMP = re.compile(
    r"""\w:(CreatorTool|softwareAgent|DigitalSourceType|provenance)\s{0,9}
    (?:=\s{0,9}["']([^"'<]{1,500})["']
    |rdf:resource=["']([^"'<]{1,500})["']
    |>([^<]{1,500})<)""",
    re.VERBOSE,
)


def read_origin(path: Path, file: BinaryIO, limits: Limits) -> Provenance:
    """Returns what a photograph or video says; if it has credentials, these are still unread."""
    file.seek(0)
    head = file.read(HEAD)
    video = kind_of(head, path) == "video"
    found = _of_video(file) if video else _of_picture(path, file, limits)
    starts: Counter[bytes] = Counter()
    credentials = False
    for kind, content in _parts(file, head):
        credentials |= kind in _C2PA or content.startswith(_C2PA_BOX) or _JUMBF in content[:100]
        starts[kind if kind == b"\xd8" else content[:5]] += 1
    if (most := max(starts[b"\xd8"], starts[b"JFIF\0"])) > 1:
        sign = f"{most} JPEG start headers, where one program writes one"
        found = replace(found, signs=(*found.signs, sign))
    return replace(found, credentials=Credentials()) if credentials else found


def _of_picture(path: Path, file: BinaryIO, limits: Limits) -> Provenance:
    said: dict[str, Any] = {}
    with suppress(UnreadableError, UnsupportedError), opened_image(path, file, limits) as image:
        texts = _png_texts(file) if image.format == "PNG" else {}
        said["generator"] = clean(texts.get("parameters") or texts.get("prompt") or "")
        xmp = _xmp(texts.get("XML:com.adobe.xmp") or image.info.get("xmp") or b"")
        said |= {"source_types": xmp["source_types"], "remote": xmp["remote"]}
        said["software"] = _several(texts.get("Software"), *xmp["software"])
        if "eXIf" in texts:
            image.info.setdefault("exif", texts["eXIf"].encode("latin-1"))
        if image.format == "PNG" and "exif" not in image.info:
            return Provenance(**said)  # or Pillow decodes it, to look for more behind its pixels
        said |= _exif(image, said["software"])
    return Provenance(**said)


def _exif(image: Image.Image, software: tuple[str, ...]) -> dict[str, Any]:
    exif = image.getexif()
    base, own = ExifTags.Base, exif.get_ifd(ExifTags.IFD.Exif)
    position = exif.get_ifd(ExifTags.IFD.GPSInfo)
    turned = exif.get(base.Orientation)
    taken = own.get(base.DateTimeOriginal) or exif.get(base.DateTime) or ""
    said = {
        "camera": _camera(exif.get(base.Make), exif.get(base.Model)),
        "taken": clean(f"{taken} {own.get(base.OffsetTimeOriginal) or ''}"),
        "software": _several(exif.get(base.Software), *software),
        "located": ExifTags.GPS.GPSLatitude in position,
        "orientation": turned if isinstance(turned, int) and 1 <= turned <= 8 else 0,
        "signs": tuple(_thumbnail(image, exif)),
    }
    return said | ({"credentials": Credentials()} if _C2PA_TAG in exif else {})


def _thumbnail(image: Image.Image, exif: Image.Exif) -> Iterator[str]:
    """Says if the embedded thumbnail has another aspect ratio than the picture."""
    inner = exif.get_ifd(ExifTags.IFD.IFD1)
    start, length = inner.get(0x0201), inner.get(0x0202)
    if not isinstance(start, int) or not isinstance(length, int):
        return
    content = image.info.get("exif", b"").removeprefix(b"Exif\0\0")[start : start + length]
    try:
        with Image.open(BytesIO(content), formats=["JPEG"]) as small:
            size = small.size
    except (OSError, ValueError, SyntaxError):  # no picture, which says nothing
        return
    aspect, other = (max(each) / max(1, min(each)) for each in (image.size, size))
    if size not in (_DCF, _DCF[::-1]) and abs(aspect / other - 1) > 0.05:
        dimensions = " x ".join(map(str, size)), " x ".join(map(str, image.size))
        yield "its thumbnail ({}) has another aspect ratio than the picture ({})".format(
            *dimensions
        )


def _of_video(file: BinaryIO) -> Provenance:
    file.seek(0)
    try:
        with av.open(
            file,
            "r",
            io_open=refuse,
            metadata_errors="replace",
            container_options={"format_whitelist": CONTAINERS, "export_xmp": "1"},
        ) as container:
            tags = {key.lower(): value for key, value in container.metadata.items()}
            encoders = [one.metadata.get("encoder") for one in container.streams.video]
            name = container.format.long_name
    except (av.FFmpegError, OSError, MemoryError, ValueError):
        return Provenance()

    def tag(*names: str) -> str:
        several = (f"{start}{each}" for each in names for start in ("com.apple.quicktime.", ""))
        return next((tags[each] for each in several if tags.get(each)), "")

    xmp = _xmp(tags.get("xmp", ""))
    return Provenance(
        camera=_camera(tag("make"), tag("model")),
        taken=clean(tag("creationdate", "creation_time", "date")),
        software=_several(tag("software"), *xmp["software"]),
        located=any("location" in key for key in tags),
        container=name,
        encoder=clean("; ".join(_several(tags.get("encoder"), *encoders))),
        source_types=xmp["source_types"],
        remote=xmp["remote"],
    )


def _camera(make: object, model: object) -> str:
    maker, name = clean(make or ""), clean(model or "")
    return name if name.lower().startswith(maker.lower()) else f"{maker} {name}".strip()


def _several(*values: object) -> tuple[str, ...]:
    return tuple(dict.fromkeys(filter(None, (clean(each or "") for each in values))))


def _xmp(packet: bytes | str) -> dict[str, Any]:
    """Finds what matters in an XMP packet, which may be any text: it is not parsed as XML."""
    text = packet[:_PART] if isinstance(packet, str) else packet[:_PART].decode("utf-8", "replace")
    found: dict[str, list[str]] = {}
    for name, *values in _XMP.findall(text):
        found.setdefault(name, []).append(unescape(next(filter(None, values))))
    types = (re.sub(r".*[/:]", "", each.strip()) for each in found.get("DigitalSourceType", ()))
    return {
        "software": _several(*found.get("CreatorTool", ()), *found.get("softwareAgent", ())),
        "source_types": _several(*types),
        "remote": clean(next(iter(found.get("provenance", ())), "")),
    }


def _png_texts(file: BinaryIO) -> dict[str, str]:
    """A PNG's texts by their key, wherever they are, and its EXIF under the name of its chunk."""
    texts = {}
    for kind, content in _parts(file, b"\x89PNG"):
        key, _, rest = content.partition(b"\0")
        if kind == b"eXIf":
            key, rest = kind, content
        elif kind not in _TEXTS:
            continue
        elif kind == b"zTXt":
            rest = _inflated(rest[1:])
        elif kind == b"iTXt":
            inner = rest[2:].split(b"\0", 2)[-1]
            rest = _inflated(inner) if rest[:1] == b"\1" else inner
        text = rest.decode("utf-8", "replace") if kind == b"iTXt" else rest.decode("latin-1")
        texts[key.decode("latin-1")] = text
    return texts


def _inflated(content: bytes) -> bytes:
    with suppress(zlib.error):
        return zlib.decompressobj().decompress(content, _PART)
    return b""


def _parts(file: BinaryIO, head: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yields the parts of a JPEG, PNG, WebP, MP4 or the like: their kinds, the content of some."""
    size = file.seek(0, 2)
    if head.startswith(b"\xff\xd8"):
        yield from _segments(file)
        return
    if head.startswith(b"GIF8"):
        file.seek(0)
        if b"C2PA_GIF" in file.read(1 << 16):
            yield b"C2PA_GIF", b""
        return
    png, riff = head.startswith(b"\x89PNG"), head.startswith(b"RIFF")
    place = 8 if png else 12 if riff else 0
    for _ in range(_PARTS):
        if place + 8 > size:
            return
        file.seek(place)
        header = file.read(16)
        kind, length, begin = header[4:8], int.from_bytes(header[:4], "big"), 8
        if riff:
            kind, length = header[:4], int.from_bytes(header[4:8], "little")
        elif not png:
            begin = 16 if length == 1 else 8
            length = (int.from_bytes(header[8:], "big") if length == 1 else length) - begin
        file.seek(place + begin)
        yield kind, file.read(max(0, min(length, _PART))) if kind in _LOOKED_AT else b""
        if length < 0:  # an MP4's last box: to the end
            return
        place += begin + length + (length % 2 if riff else 4 if png else 0)


def _segments(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """Yields the segments of a JPEG up to its pixels, by the second byte of their markers."""
    file.seek(0)
    for _ in range(_PARTS):
        first, kind = file.read(1), file.read(1)
        while kind == b"\xff":  # which may fill
            kind = file.read(1)
        if first != b"\xff" or kind in (b"", b"\xd9", b"\xda"):
            return
        alone = kind == b"\x01" or b"\xd0" <= kind <= b"\xd8"
        length = 0 if alone else int.from_bytes(file.read(2), "big")
        yield kind, file.read(max(0, length - 2))
