"""Files as strangers have them: odd, broken, and made to harm. All are made here, by code.

``CASES`` says for each what its status is; ``test_media_hostile.py`` reads them, and the fuzzers
start from them.
"""

from __future__ import annotations

import io
import os
import stat
import struct
import sys
import wave
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

WIDTH, HEIGHT = 64, 48


@dataclass(frozen=True)
class Case:
    """A file.

    Attributes:
        name: Of the file.
        make: Writes it.
        status: ``ok``, ``unreadable`` or ``unsupported``.
        says: What its message says (a regular expression), or one of its notes.
        size: Width and height of its (first) frame.
        frames: How many of them there are to see, of at most eight.
    """

    name: str
    make: Callable[[Path], object]
    status: str = "ok"
    says: str = ""
    size: tuple[int, int] = (WIDTH, HEIGHT)
    frames: int = 1


# Photographs


def picture(mode: str = "RGB", size: tuple[int, int] = (WIDTH, HEIGHT)) -> Image.Image:
    """A picture in which every pixel and every orientation is different."""
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    pixels = np.stack([x * 4, y * 5, 255 - x - y], axis=2).astype(np.uint8)
    image = Image.fromarray(pixels)
    return (image.convert("P") if mode == "PA" else image).convert(mode)


def save(mode: str = "RGB", kind: str | None = None, **options: object) -> Callable[[Path], object]:
    return lambda path: picture(mode).save(path, kind, **options)


def encoded(kind: str, mode: str = "RGB", **options: object) -> bytes:
    stream = io.BytesIO()
    picture(mode).save(stream, kind, **options)
    return stream.getvalue()


def write(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def cut(kind: str, share: float = 0.6) -> Callable[[Path], object]:
    content = encoded(kind)
    return write(content[: int(len(content) * share)])


def animated(kind: str) -> Callable[[Path], object]:
    frames = [picture().rotate(9 * index) for index in range(3)]
    return lambda path: frames[0].save(
        path, kind, save_all=True, append_images=frames[1:], duration=100
    )


def rotated(orientation: int) -> Callable[[Path], object]:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return save(exif=exif, quality=95)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, color: int, data: bytes, *extra: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
    body = b"".join((*extra, chunk(b"IDAT", data), chunk(b"IEND", b"")))
    return b"\x89PNG\r\n\x1a\n" + header + body


def zeros(count: int) -> bytes:
    """So many zero bytes, compressed a thousandfold."""
    packer = zlib.compressobj(9)
    parts = [packer.compress(bytes(1 << 20)) for _ in range(count >> 20)]
    return b"".join((*parts, packer.compress(bytes(count & 0xFFFFF)), packer.flush()))


def png_wide_colour(path: Path) -> None:
    """16 bits a channel, RGB, which Pillow does not write."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    pixels = np.stack([x * 1000, y * 1300, x * y], axis=2).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    path.write_bytes(png(WIDTH, HEIGHT, 16, 2, zlib.compress(rows)))


def png_bomb(path: Path) -> None:
    """30,000 x 30,000 true pixels in a hundred kilobytes."""
    path.write_bytes(png(30_000, 30_000, 1, 0, zeros(30_000 * 3751)))


def png_text_bomb(path: Path) -> None:
    """A small picture with a comment of a hundred megabytes."""
    comment = chunk(b"zTXt", b"Comment\0\0" + zeros(100 << 20))
    rows = zlib.compress(bytes(HEIGHT * (1 + 3 * WIDTH)))
    path.write_bytes(png(WIDTH, HEIGHT, 8, 2, rows, comment))


def gif(width: int, height: int) -> bytes:
    screen = struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(3) + b"\xff\xff\xff"
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02\x44\x01\0"
    return b"GIF89a" + screen + frame + b"\x3b"


def gif_of_many_frames(path: Path) -> None:
    stream = io.BytesIO()
    Image.new("P", (WIDTH, HEIGHT)).save(stream, "GIF")
    content = stream.getvalue()
    start = 13 + 3 * (2 << (content[10] & 7))  # after the colours
    path.write_bytes(content[:start] + content[start:-1] * 50_000 + b";")


def webp(width: int, height: int) -> bytes:
    size = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    body = b"WEBP" + b"VP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + size
    body += b"ANIM" + struct.pack("<I", 6) + bytes(6)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def bmp(width: int, height: int) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 60, 0, 0, 54) + header + bytes(6)


def tiff(width: int, height: int) -> bytes:
    tags = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 8), (278, height)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)


def jpeg_of_size(width: int, height: int) -> bytes:
    content = bytearray(encoded("JPEG"))
    place = content.index(b"\xff\xc0") + 5
    content[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(content)


def without_timescale(path: Path) -> None:
    """An animation whose second lasts no time, so that Pillow divides by zero."""

    def none(header: bytes) -> bytes:
        place = 20 if header[0] else 12  # by the box's version
        return header[:place] + bytes(4) + header[place + 4 :]

    whole = made(animated("AVIF"), path.parent, "whole.avif")
    path.write_bytes(changed(whole, "moov/trak/mdia/mdhd", none))


# Videos


def numbered(count: int, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Iterator[av.VideoFrame]:
    """Frames that get lighter, with their number in black and white, and a red corner."""
    width, height = size
    for index in range(count):
        pixels = np.full((height, width, 3), 20 + 4 * index % 200, np.uint8)
        pixels[: height // 2, : width // 4] = (255, 0, 0)
        for bit in range(8):
            pixels[-16:, 8 * bit : 8 * bit + 8] = 255 * (index >> bit & 1)
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        frame.pts, frame.time_base = index, Fraction(1, 25)
        yield frame


def video(
    count: int = 20,
    codec: str = "libx264",
    kind: str | None = None,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    prepare: Callable[[av.VideoStream], object] = lambda stream: None,
    times: Callable[[int], int] = lambda index: index,
    pixels: str = "yuv420p",
    container_options: dict[str, str] | None = None,
    **options: str,
) -> Callable[[Path], object]:
    """What writes frames at 25 a second."""

    def make(path: Path) -> None:
        with av.open(str(path), "w", kind, options=container_options or {}) as container:
            stream = container.add_stream(codec, rate=25, options=options)
            stream.width, stream.height = size
            stream.pix_fmt = pixels
            prepare(stream)
            for index, frame in enumerate(numbered(count, size)):
                frame.pts = times(index)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        _yield_priority()

    return make


def _yield_priority() -> None:
    """Undoes what SVT-AV1 does as root: a real-time process, which starves all others."""
    if sys.platform == "linux":
        for thread in Path("/proc/self/task").iterdir():
            os.sched_setscheduler(int(thread.name), os.SCHED_OTHER, os.sched_param(0))


def make_video(path: Path, count: int = 90, codec: str = "libx264", **options: Any) -> Path:
    """Writes a video, with jumps every 30 frames where it is H.264; returns its path."""
    jumps = {"g": "30", "bf": "3"} if codec == "libx264" else {}
    video(count, codec, **{**jumps, **options})(path)
    return path


def made(make: Callable[[Path], object], folder: Path, name: str = "whole.mp4") -> bytes:
    """The bytes of a file that another is made of."""
    path = folder / f".{name}"
    make(path)
    content = path.read_bytes()
    path.unlink()
    return content


def boxes(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of each box of an MP4, or of a box's content."""
    place = 0
    while place + 8 <= len(content):
        size, kind = struct.unpack(">I4s", content[place : place + 8])
        yield kind, place, place + (size or len(content) - place)
        place += max(size, 8)


def changed(content: bytes, path: str, change: Callable[[bytes], bytes]) -> bytes:
    """Returns an MP4 with the content of a box (``"moov/trak/mdia"``) changed, and all sizes."""
    first, _, rest = path.partition("/")
    for kind, start, end in boxes(content):
        if kind == first.encode():
            inside = content[start + 8 : end]
            inside = changed(inside, rest, change) if rest else change(inside)
            box = struct.pack(">I4s", len(inside) + 8, kind) + inside
            return content[:start] + box + content[end:]
    raise KeyError(path)


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", len(content) + 8, kind) + content


def cut_video(ending: str, share: float) -> Callable[[Path], object]:
    def make(path: Path) -> None:
        whole = made(video(60, g="10"), path.parent, f"whole.{ending}")
        path.write_bytes(whole[: int(len(whole) * share)])

    return make


def without_moov(path: Path) -> None:
    whole = made(video(), path.parent)
    path.write_bytes(
        b"".join(whole[start:end] for kind, start, end in boxes(whole) if kind != b"moov")
    )


def with_external_data(path: Path) -> None:
    """An MP4 whose frames are said to be in another file, as QuickTime can."""
    other = bytes(path.parent / "bait")
    alias = bytes(10) + b"\x04disk".ljust(28, b"\0") + bytes(12)
    alias += b"\x04bait".ljust(64, b"\0") + bytes(16) + struct.pack(">HH", 1, 1) + bytes(16)
    alias += struct.pack(">HH", 2, len(other)) + other + b"\0" * (len(other) % 2)
    alias += struct.pack(">HH", 18, len(other)) + other + b"\0" * (len(other) % 2)
    alias += b"\xff\xff\0\0"
    entry = bytes(4) + struct.pack(">I", 1) + box(b"alis", bytes(4) + alias)
    whole = made(video(), path.parent)
    path.write_bytes(changed(whole, "moov/trak/mdia/minf/dinf/dref", lambda _: entry))


def with_long_header(path: Path) -> None:
    """The file's header says 20 seconds; there are two. (MP4's claims FFmpeg does not believe.)"""
    content = bytearray(made(video(50), path.parent, "whole.mkv"))
    place = content.index(b"\x44\x89\x88") + 3  # Duration, a float of 8 bytes, in milliseconds
    content[place : place + 8] = struct.pack(">d", 20_000)
    path.write_bytes(content)


def with_many_claimed_frames(path: Path) -> None:
    """An AVI whose stream header says a million frames."""
    whole = bytearray(made(video(20, codec="mpeg4"), path.parent, "whole.avi"))
    place = whole.index(b"strh") + 8 + 32
    whole[place : place + 4] = struct.pack("<I", 1_000_000)
    path.write_bytes(whole)


def with_size(width: int, height: int) -> Callable[[Path], object]:
    """A video of very large frames."""
    return video(3, codec="rawvideo", size=(width, height), pixels="gray")


def of_unknown_coding(path: Path) -> None:
    path.write_bytes(made(video(), path.parent).replace(b"avc1", b"zzzz"))


def sound(path: Path) -> None:
    with wave.open(str(tones := path.parent / ".a.wav"), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(16000))
    with av.open(str(path), "w", "mp4") as container, av.open(str(tones)) as source:
        stream = container.add_stream("aac", rate=8000)
        for frame in source.decode(audio=0):
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    tones.unlink()


def with_cover(make: Callable[[Path], object]) -> Callable[[Path], object]:
    """With a picture of its cover, as music shops sell it."""

    def finish(path: Path) -> None:
        data = box(b"data", struct.pack(">II", 13, 0) + encoded("JPEG"))
        handler = box(b"hdlr", bytes(8) + b"mdirappl" + bytes(9))
        meta = box(b"meta", bytes(4) + handler + box(b"ilst", box(b"covr", data)))
        whole = made(make, path.parent)
        path.write_bytes(changed(whole, "moov", lambda moov: moov + box(b"udta", meta)))

    return finish


def several_streams(path: Path) -> None:
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("libx264", rate=25) for _ in range(3)]
        for stream, scale in zip(streams, (1, 2, 3), strict=True):
            stream.width, stream.height, stream.pix_fmt = WIDTH * scale, HEIGHT * scale, "yuv420p"
        for stream, scale in zip(streams, (1, 2, 3), strict=True):
            for frame in numbered(10, (WIDTH * scale, HEIGHT * scale)):
                container.mux(stream.encode(frame))
            container.mux(stream.encode())


def changing_size(path: Path) -> None:
    """A broadcast whose frames become larger on the way."""
    with av.open(str(path), "w", "mpegts") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        second = av.CodecContext.create("libx264", "w")
        second.width, second.height, second.pix_fmt = 2 * WIDTH, 2 * HEIGHT, "yuv420p"
        second.time_base, second.framerate = Fraction(1, 25), Fraction(25)
        for encoder, size, first in (
            (stream, (WIDTH, HEIGHT), 0),
            (second, (2 * WIDTH, 2 * HEIGHT), 10),
        ):
            for frame in [*numbered(10, size), None]:
                if frame is not None:
                    frame.pts += first
                for packet in encoder.encode(frame):
                    packet.stream = stream
                    container.mux(packet)


def high_dynamic_range(transfer: str) -> Callable[[Path], object]:
    x265 = f"colorprim=bt2020:transfer={transfer}:colormatrix=bt2020nc:range=limited:log-level=none"

    def make(path: Path) -> None:
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx265", rate=25, options={"x265-params": x265})
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p10le"
            for index in range(5):
                frame = av.VideoFrame(WIDTH, HEIGHT, "yuv420p10le")
                luma = np.full((HEIGHT, WIDTH), 64, "<u2")
                luma[:, WIDTH // 2 :] = 64 + int(0.58 * 876)  # diffuse white in PQ: 203 cd/m2
                for plane, values in zip(
                    frame.planes,
                    (luma, *[np.full((HEIGHT // 2, WIDTH // 2), 512, "<u2")] * 2),
                    strict=True,
                ):
                    rows = np.zeros((plane.height, plane.line_size // 2), "<u2")
                    rows[:, : values.shape[1]] = values
                    plane.update(rows.tobytes())
                frame.pts, frame.time_base = index, Fraction(1, 25)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())

    return make


def no_frames(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        container.start_encoding()


def damaged(path: Path) -> None:
    """The middle of each of its frames' data is noise."""
    content = bytearray(made(video(60, codec="mpeg4", g="1"), path.parent, "whole.avi"))
    noise = np.random.default_rng(0)
    start, end = len(content) // 4, 3 * len(content) // 4
    for place in noise.integers(start, end, 100):
        content[place] = noise.integers(256)
    path.write_bytes(content)


def listing(text: str) -> Callable[[Path], object]:
    """A text that names another file beside it: ``bait``, which nothing may open."""
    return lambda path: path.write_text(text.replace("{bait}", str(path.parent / "bait")))


HLS = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n"
MPD = (
    '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static">'
    '<Period><AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1">'
    "<BaseURL>file://{bait}</BaseURL></Representation></AdaptationSet></Period></MPD>"
)
SDP = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=a\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n"
VOBSUB = "# VobSub index file, v7\nid: en, index: 0\ntimestamp: 00:00:01:000, filepos: 000000000\n"

# What is no regular file


def fifo(path: Path) -> None:
    os.mkfifo(path)


def unix_socket(path: Path) -> None:
    os.mknod(path, stat.S_IFSOCK | 0o600)


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(400)
SVG = b"<?xml version='1.0'?>\n<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>"
CONCAT = "ffconcat version 1.0\nfile '{bait}'\n"
PIXELS = "pixels"
NO_IMAGE = "no image that is read here"
NO_VIDEO = "damaged or no video"

IMAGES = (
    Case("one-pixel.png", lambda path: picture(size=(1, 1)).save(path), size=(1, 1)),
    Case("one-row.png", lambda path: picture(size=(65_535, 1)).save(path), size=(65_535, 1)),
    Case("cmyk.jpg", save("CMYK"), says="CMYK"),
    Case("16-bit-colour.png", png_wide_colour, says="16 bits"),
    Case("16-bit-grey.png", save("I;16"), says="16 bits"),
    Case("palette.png", save("P")),
    Case("bilevel.png", save("1")),
    Case("alpha.png", save("RGBA"), says="transparency"),
    Case("grey.jpg", save("L")),
    Case("grey-alpha.png", save("LA"), says="transparency"),
    Case("pages.tiff", animated("TIFF"), says="first of several"),
    Case("still.avif", save()),
    Case("timeless.avif", without_timescale, "unreadable", "damaged image"),
    Case("a.jp2", save()),
    Case("turned-3.jpg", rotated(3)),
    Case("turned-6.jpg", rotated(6), size=(HEIGHT, WIDTH)),
    Case("turned-99.jpg", rotated(99)),
    Case("photograph.mp4", save(kind="JPEG")),
    Case("photograph", save(kind="PNG")),
    Case("photograph.txt", save(kind="WEBP")),
    Case("a-png.jpg", save(kind="PNG")),
    Case("comment-bomb.png", png_text_bomb, "unreadable", "damaged image"),
    Case("empty.jpg", write(b""), "unreadable", "the file is empty"),
    Case("text.jpg", write(b"dear all"), "unreadable", NO_IMAGE),
    Case("zeros.jpg", write(bytes(5000)), "unreadable", NO_IMAGE),
    *(
        Case(f"cut.{kind.lower()}", cut(kind), "unreadable", "damaged image")
        for kind in ("JPEG", "PNG", "GIF", "WEBP", "AVIF", "TIFF")
    ),
    Case("header-only.jpg", cut("JPEG", 0.05), "unreadable", "damaged image"),
    Case("bomb.png", png_bomb, "unreadable", PIXELS),
    *(
        Case(f"bomb.{ending}", write(content), "unreadable", PIXELS)
        for ending, content in (
            ("gif", gif(30_000, 30_000)),
            ("webp", webp(16_000, 16_000)),
            ("bmp", bmp(30_000, 30_000)),
            ("tiff", tiff(30_000, 30_000)),
            ("jpg", jpeg_of_size(65_500, 65_500)),
            ("ppm", b"P6 30000 30000 255\n"),
        )
    ),
    Case("phone.heic", write(HEIC), "unreadable" if find_spec("pillow_heif") else "unsupported"),
    Case("drawing.svg", write(SVG), "unsupported", "SVG"),
    Case("drawing.mp4", write(SVG), "unsupported", "SVG"),
    Case("script.jpg", write(b"%!PS-Adobe-3.0 EPSF-3.0\n"), "unreadable", NO_IMAGE),
    Case("floats.tiff", save("F"), "unsupported", "no set range"),
)

VIDEOS = (
    *(
        Case(f"animated.{kind}", animated(kind), frames=3)
        for kind in ("GIF", "PNG", "WEBP", "AVIF")
    ),
    Case("endless.gif", gif_of_many_frames, frames=8),
    Case("plain.mp4", video(), frames=8),
    Case("one-frame.mp4", video(1)),
    Case("odd.mkv", video(codec="ffv1", size=(63, 47), pixels="yuv444p"), size=(63, 47), frames=8),
    Case("grey.mkv", video(codec="ffv1", pixels="gray"), frames=8),
    Case("alpha.mkv", video(codec="ffv1", pixels="yuva420p"), frames=8),
    Case("vp9.webm", video(codec="libvpx-vp9"), frames=8),
    Case("av1.mp4", video(codec="libsvtav1", size=(64, 64)), size=(64, 64), frames=8),
    Case("mjpeg.avi", video(codec="mjpeg", pixels="yuvj420p"), frames=8),
    Case("old.mpg", video(codec="mpeg2video"), frames=8),
    Case(
        "fragments.mp4", video(container_options={"movflags": "frag_keyframe+empty_moov"}), frames=8
    ),
    Case("video.jpg", video(kind="mp4"), frames=8),
    Case("video", video(kind="matroska"), frames=8),
    Case("broadcast.png", video(kind="mpegts"), frames=8),
    Case("several.mkv", several_streams, says="the first of 3 video streams", frames=8),
    Case(
        "turned.mp4",
        video(prepare=lambda stream: stream.set_display_rotation(90)),
        size=(HEIGHT, WIDTH),
        frames=8,
    ),
    Case("variable.mp4", video(times=lambda index: index * index), frames=8),
    Case("late.ts", video(times=lambda index: 250_000 + index), frames=8),
    Case("growing.ts", changing_size, frames=8),
    Case("hdr-pq.mp4", high_dynamic_range("smpte2084"), says="high dynamic range", frames=5),
    Case("hdr-hlg.mp4", high_dynamic_range("arib-std-b67"), says="high dynamic range", frames=5),
    Case("long-header.mkv", with_long_header, says="says 20.0 s, the packets 2.0 s", frames=8),
    Case("many-claimed.avi", with_many_claimed_frames, says="says 1000000 frames", frames=8),
    Case("cut.mkv", cut_video("mkv", 0.6), frames=8),
    Case("cut.ts", cut_video("ts", 0.6), frames=8),
    Case("damaged.avi", damaged, frames=8),
    Case("covered.mp4", with_cover(video()), frames=8),
    Case("cut.mp4", cut_video("mp4", 0.6), "unreadable", NO_VIDEO),
    Case("no-moov.mp4", without_moov, "unreadable", NO_VIDEO),
    Case("empty.mp4", write(b""), "unreadable", "the file is empty"),
    Case("text.mp4", write(b"dear all"), "unreadable", NO_VIDEO),
    Case("zeros.mp4", write(bytes(5000)), "unreadable", NO_VIDEO),
    Case(
        "boxes.mp4", write(b"\0\0\0\x08ftyp" + b"\xff\xff\xff\xffmoov" * 99), "unreadable", NO_VIDEO
    ),
    Case("no-frames.mkv", no_frames, "unreadable", NO_VIDEO),
    Case("no-frames.mp4", no_frames, "unsupported", "no video in it"),  # nor a track, then
    Case("sound.mp4", sound, "unsupported", "no video in it"),
    Case("sound.mp3", write(b"ID3\4" + bytes(500)), "unsupported", "no video in it"),
    Case("sound.wav", write(b"RIFF\0\4\0\0WAVEfmt "), "unsupported", "no video in it"),
    Case("sound-with-cover.mp4", with_cover(sound), "unsupported", "no video in it"),
    Case("unknown.mp4", of_unknown_coding, "unsupported", "no decoder"),
    Case("huge.mkv", with_size(30_000, 4_000), "unsupported", "30000 x 4000"),
    *(
        Case(name, listing(text), "unreadable", NO_IMAGE if name.endswith("jpg") else NO_VIDEO)
        for name, text in (
            ("hls.mp4", HLS.format("{bait}")),
            ("hls-file.mp4", HLS.format("file:{bait}")),
            ("hls.jpg", HLS.format("{bait}")),
            ("concat.mp4", CONCAT),
            ("dash.mp4", MPD),
            ("session.mp4", SDP),
            ("subtitles.mpg", VOBSUB),
        )
    ),
    Case("external.mov", with_external_data, "unreadable", "no frame"),
)

OTHERS = (
    Case("pipe.jpg", fifo, "unsupported", "no regular file"),
    Case("pipe.mp4", fifo, "unsupported", "no regular file"),
    Case("socket.jpg", unix_socket, "unsupported", "no regular file"),
    Case("folder.jpg", lambda path: path.mkdir(), "unsupported", "no regular file"),
    Case("zero.mp4", lambda path: path.symlink_to("/dev/zero"), "unsupported", "no regular"),
    Case("loop.jpg", lambda path: path.symlink_to(path.name), "unreadable", "symbolic links"),
    Case("dangling.jpg", lambda path: path.symlink_to("nowhere"), "unreadable", "No such file"),
    Case("absent.jpg", lambda path: None, "unreadable", "No such file"),
    Case("nul\0.jpg", lambda path: None, "unreadable", "null"),
    Case("long" * 99 + ".jpg", lambda path: None, "unreadable", "too long"),
)

NAMES = tuple(
    Case(f"{name}{ending}", make, status, says)
    for name in (
        "two words",
        "two\nlines",
        "\x1b[2J\x1b]0;title\x07",
        "\U0001f600",
        "-rf",
        "<script>alert(1)</script>&\"'".replace("/", "\u2215"),
        "\u202egpj.exe",
        "\udcff\udcfe",
        "$(reboot)`reboot`;%s%n{0}",
    )
    for ending, make, status, says in (
        (".png", save(kind="PNG"), "ok", ""),
        (".jpg", write(b"no picture"), "unreadable", NO_IMAGE),
    )
)

CASES = IMAGES + VIDEOS + OTHERS + NAMES
