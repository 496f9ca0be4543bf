"""Photographs and videos: what is read, what is refused, and which frames are chosen."""

from __future__ import annotations

import gc
import re
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from decoding import frames, read_frames
from hostile import HEIGHT, WIDTH, make_video, picture, png
from PIL import Image, ImageCms, ImageOps

from deepregions.errors import UnreadableError, UsageError
from deepregions.media import Frame, find_media, videos
from deepregions.media.images import read_image
from deepregions.media.source import open_source


def pixels_of(path: Path) -> np.ndarray:
    image = read_image(path)
    assert image.dtype == np.uint8
    return image


def profile(gamma: float) -> bytes:
    """An ICC profile (version 2) of sRGB's primaries and white, with this gamma."""

    def numbers(*values: float) -> bytes:
        return b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    curve = b"curv" + bytes(4) + struct.pack(">IHH", 1, round(gamma * 256), 0)
    primaries = ((0.436, 0.222, 0.014), (0.385, 0.717, 0.097), (0.143, 0.061, 0.714))
    tags = {b"wtpt": b"XYZ " + bytes(4) + numbers(0.9642, 1, 0.8249)}
    for name, primary in zip(b"rgb", primaries, strict=True):
        tags[bytes([name]) + b"XYZ"] = b"XYZ " + bytes(4) + numbers(*primary)
        tags[bytes([name]) + b"TRC"] = curve
    table, data, start = b"", b"", 128 + 4 + 12 * len(tags)
    for name_, content in tags.items():
        table += name_ + struct.pack(">II", start + len(data), len(content))
        data += content
    head = struct.pack(">I4sI", start + len(data), b"lcms", 0x02400000) + b"mntrRGB XYZ "
    head = (head + bytes(12) + b"acsp" + bytes(28) + numbers(0.9642, 1, 0.8249)).ljust(128, b"\0")
    return head + struct.pack(">I", len(tags)) + table + data


@pytest.mark.parametrize("ending", ["png", "bmp", "tiff", "ppm"])
def test_lossless_formats_give_the_pixels(tmp_path: Path, ending: str) -> None:
    picture().save(path := tmp_path / f"a.{ending}")
    assert np.array_equal(pixels_of(path), np.array(picture()))


@pytest.mark.parametrize("ending", ["jpg", "webp", "avif", "jp2"])
def test_lossy_formats_give_rgb_in_order(tmp_path: Path, ending: str) -> None:
    Image.new("RGB", (32, 24), (250, 120, 10)).save(path := tmp_path / f"a.{ending}", quality=95)
    image = pixels_of(path)
    assert image.shape == (24, 32, 3)
    assert np.abs(image.astype(int) - (250, 120, 10)).max() <= 6


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture().save(path := tmp_path / "a.png", exif=exif)
    expected = np.array(ImageOps.exif_transpose(Image.open(path)))
    assert np.array_equal(pixels_of(path), expected)
    picture().save(path := tmp_path / "a.tiff", exif=exif)  # which Pillow turns as it loads
    assert np.array_equal(pixels_of(path), expected)


def test_a_jpegs_quality_is_told(tmp_path: Path) -> None:
    for quality in (25, 50, 75, 90, 95):
        picture().save(path := tmp_path / "a.jpg", quality=quality)
        with open_source(path) as source:
            assert source.info.jpeg_quality == pytest.approx(quality, abs=1)
    picture().save(path := tmp_path / "a.png")
    with open_source(path) as source:
        assert source.info.jpeg_quality is None


def test_broken_exif_does_not_take_the_picture_away(tmp_path: Path) -> None:
    picture().save(path := tmp_path / "a.png", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert np.array_equal(pixels_of(path), np.array(picture()))


@pytest.mark.parametrize(("aspect", "size"), [("2", (128, 48)), ("1/2", (64, 96)), ("1", (64, 48))])
def test_pixels_become_square(tmp_path: Path, aspect: str, size: tuple[int, int]) -> None:
    def squeeze(stream: av.VideoStream) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(aspect)

    path = make_video(tmp_path / "a.mkv", 3, prepare=squeeze)
    with open_source(path) as source:
        (shown, *_) = source.frames([0])
        info = source.info
    assert shown.image.shape[1::-1] == (info.width, info.height) == size
    assert ("square" in " ".join(info.notes)) == (aspect != "1")


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, WIDTH * HEIGHT).astype(np.uint16).reshape(HEIGHT, WIDTH)
    for name in ("a.png", "a.tiff"):
        Image.fromarray(values).save(path := tmp_path / name)
        image = pixels_of(path)
        assert np.abs(image[..., 0] - values / 257).max() <= 0.5
        assert np.array_equal(image[..., 0], image[..., 2])


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "PA", "1", "CMYK", "YCbCr"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    converted = (picture().convert("P") if mode == "PA" else picture()).convert(mode)
    ending = {"CMYK": "tiff", "PA": "tiff", "YCbCr": "jpg"}.get(mode, "png")
    converted.save(path := tmp_path / f"a.{ending}")
    grey = picture().convert("L")
    read = Image.fromarray(pixels_of(path)).convert("L").reduce(8)  # undoes dithering
    assert np.abs(np.array(read) - np.array(grey.reduce(8), dtype=float)).mean() < 8


def test_transparency_is_dropped_not_blended(tmp_path: Path) -> None:
    Image.new("RGBA", (8, 8), (10, 200, 30, 0)).save(path := tmp_path / "a.png")
    assert pixels_of(path)[0, 0].tolist() == [10, 200, 30]


@pytest.mark.parametrize(("gamma", "shown"), [(1.0, 188), (1.8, 146)])
def test_colours_of_another_profile_become_srgb(tmp_path: Path, gamma: float, shown: int) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (8, 8), (128, 128, 128)).save(path, icc_profile=profile(gamma))
    assert np.abs(pixels_of(path).astype(int) - shown).max() <= 1
    with open_source(path) as source:
        assert source.info.notes == ("colours of another profile, shown in sRGB",)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "RGBA", "P"])
def test_a_useless_profile_changes_nothing(tmp_path: Path, mode: str) -> None:
    for damaged in (b"no profile", profile(1.0)[:200], bytes(400)):
        picture().convert(mode).save(path := tmp_path / "a.tiff")
        plain = pixels_of(path)
        picture().convert(mode).save(path, icc_profile=damaged)
        assert np.array_equal(pixels_of(path), plain)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture().convert(mode).save(path, icc_profile=srgb)
    assert np.array_equal(pixels_of(path), plain)


@pytest.mark.parametrize("ending", ["gif", "webp", "png", "tiff"])
def test_an_animation_is_its_first_frame(tmp_path: Path, ending: str) -> None:
    shades = [Image.new("RGB", (16, 16), (shade,) * 3) for shade in (40, 120, 240)]
    path = tmp_path / f"a.{ending}"
    shades[0].save(path, save_all=True, append_images=shades[1:], duration=100)
    assert np.abs(pixels_of(path).astype(int) - 40).max() <= 3


@pytest.mark.parametrize("ending", ["gif", "webp", "png", "avif"])
def test_an_animated_picture_is_sampled_like_a_film(tmp_path: Path, ending: str) -> None:
    shades = [Image.new("RGB", (16, 16), (shade,) * 3) for shade in (40, 120, 240)]
    shades[0].save(
        path := tmp_path / f"a.{ending}", save_all=True, append_images=shades[1:], duration=100
    )
    shown = list(frames(path, 5))
    assert [int(frame.image.mean()) // 40 for frame in shown] == [1, 3, 6]
    assert [frame.time for frame in shown] == pytest.approx([0, 0.1, 0.2])
    shades[1].save(path)
    assert len(list(frames(path, 5))) == 1


def test_a_picture_before_an_apngs_first_frame_is_not_shown(tmp_path: Path) -> None:
    shades = [Image.new("RGB", (16, 16), (shade,) * 3) for shade in (40, 120, 240)]
    shades[0].save(
        path := tmp_path / "a.png",
        save_all=True,
        append_images=shades[1:],
        default_image=True,
        duration=100,
    )
    shown = list(frames(path, 5))
    assert [int(frame.image.mean()) // 40 for frame in shown] == [3, 6]
    assert [frame.time for frame in shown] == pytest.approx([0, 0.1])


@pytest.mark.parametrize(("width", "height"), [(30_000, 30_000), (10_001, 10_000), (2**31 - 1, 1)])
def test_size_is_checked_before_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int, height: int
) -> None:
    (path := tmp_path / "bomb.png").write_bytes(png(width, height, 8, 2, b""))

    def load(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    with pytest.raises(UnreadableError, match="pixels"):
        read_image(path)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_heic_is_read_upright(tmp_path: Path, orientation: int) -> None:
    heif = pytest.importorskip("pillow_heif", reason="the extra heif is not installed")
    image = heif.from_pillow(picture())
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.info["exif"] = exif.tobytes()
    image.save(path := tmp_path / "a.heic", quality=95)
    turned = picture()
    turned.getexif()[0x0112] = orientation
    expected = np.array(ImageOps.exif_transpose(turned), dtype=int)
    assert np.abs(pixels_of(path) - expected).mean() < 5


def test_folders_are_read_by_content_and_what_is_passed_over_is_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.jpe", "b", "c.photo", "d.dat"):
        picture().save(tmp_path / name, "JPEG")
    for name in ("e.txt", "f.txt", "g.m4a", ".h.jpg"):
        (tmp_path / name).write_bytes(b"....ftypM4A ")
    (tmp_path / "e.txt").write_text("words")
    (tmp_path / "f.txt").write_text("words")
    assert [path.name for path in find_media([tmp_path])] == ["a.jpe", "b", "c.photo", "d.dat"]
    assert "passed over: 2 .txt, 1 .m4a" in caplog.text


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("absent.jpg", "no such file"),
        ("-", "standard input is not read"),
        ("https://host/a.jpg", "https://host/a.jpg: addresses are not read"),
        ("*.jpg", "no file matches this pattern"),
    ],
)
def test_find_media_names_what_is_wrong(tmp_path: Path, name: str, says: str) -> None:
    with pytest.raises(UsageError, match=re.escape(says)):
        find_media([Path(name)])
    with pytest.raises(UsageError, match="no photographs or videos"):
        find_media([tmp_path])


def numbers(sampled: list[Frame]) -> list[int]:
    """Reads off which frames these are."""
    return [
        sum(1 << bit for bit in range(8) if frame.image[-8, 8 * bit + 4].mean() > 128)
        for frame in sampled
    ]


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts", "avi", "flv"])
@pytest.mark.parametrize("count", [1, 7])
def test_frames_on_show_in_the_middle_of_equal_intervals(
    tmp_path: Path, ending: str, count: int
) -> None:
    sampled = list(frames(make_video(tmp_path / f"a.{ending}"), count))
    middles = (np.arange(count) + 0.5) * 90 / count
    tolerance = 1 if ending == "avi" else 0  # AVI has no display times; decoders guess
    assert np.abs(np.array(numbers(sampled)) - np.floor(middles + 1e-9)).max() <= tolerance
    expected = np.floor(middles + 1e-9) / 25
    assert np.abs([frame.time for frame in sampled] - expected).max() < tolerance / 25 + 2e-3
    assert sampled[0].image.shape == (HEIGHT, WIDTH, 3)
    red, green, blue = sampled[0].image[4, 4].tolist()
    assert red > 200 > 60 > max(green, blue)


@pytest.mark.parametrize("ending", ["mp4", "mkv", "webm"])
def test_a_video_of_fewer_frames_gives_each_once(tmp_path: Path, ending: str) -> None:
    codec = "libvpx-vp9" if ending == "webm" else "libx264"
    path = make_video(tmp_path / f"a.{ending}", count=9, codec=codec)
    for count in (9, 10, 50):
        assert numbers(list(frames(path, count))) == list(range(9))


def test_variable_frame_rate_is_sampled_by_time(tmp_path: Path) -> None:
    # Frame 0 is on show for 2 s; then nine frames in 0.36 s.
    path = make_video(tmp_path / "a.mp4", 10, times=lambda index: index and 50 + index)
    sampled = list(frames(path, 4))
    assert numbers(sampled) == [0, 2]
    assert sampled[1].time == pytest.approx(52 / 25, abs=1e-3)


def decoded_counter(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    counted = [0]
    decode = videos._frames

    def counting(packet: av.Packet, damaged: set[int]) -> list[av.VideoFrame]:
        counted[0] += bool(packet.size)
        return decode(packet, damaged)

    monkeypatch.setattr(videos, "_frames", counting)
    return counted


@pytest.mark.parametrize("options", [{}, {"x264-params": "open-gop=1:b-pyramid=normal"}])
def test_jumping_gives_the_frames_of_decoding_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, str]
) -> None:
    path = make_video(tmp_path / "a.mp4", 127, sc_threshold="0", **options)
    decoded = decoded_counter(monkeypatch)
    monkeypatch.setattr(videos, "_THREADS", 1)  # each more asks for packets ahead
    for count in (1, 2, 3, 5, 16):
        monkeypatch.setattr(videos, "_NEAR", 5)
        decoded[0] = 0
        jumped = list(frames(path, count))
        assert decoded[0] < (60 if count == 1 and not options else 128)
        monkeypatch.setattr(videos, "_NEAR", 10**9)
        whole = list(frames(path, count))
        assert [frame.time for frame in jumped] == [frame.time for frame in whole]
        for one, other in zip(jumped, whole, strict=True):
            assert np.array_equal(one.image, other.image)


@pytest.mark.skipif(
    not hasattr(av.VideoStream, "set_display_rotation"), reason="this PyAV cannot write rotation"
)
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize(("hflip", "vflip"), [(False, False), (True, False), (False, True)])
def test_rotation_and_mirroring_are_applied(
    tmp_path: Path, degrees: int, hflip: bool, vflip: bool
) -> None:
    def turn(stream: av.VideoStream) -> None:
        stream.set_display_rotation(degrees, hflip=hflip, vflip=vflip)

    upright = next(frames(make_video(tmp_path / "a.mp4", 3), 3)).image
    turned = next(frames(make_video(tmp_path / "b.mp4", 3, prepare=turn), 3)).image
    expected = np.rot90(upright, degrees // 90)
    expected = expected[:, ::-1] if hflip else expected
    expected = expected[::-1] if vflip else expected
    assert np.array_equal(turned, expected)


def test_cut_videos(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", 90)  # its index is at its end
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UnreadableError, match=r"a\.mp4"):
        list(frames(path, 3))
    path = make_video(tmp_path / "a.mkv", 90)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    cut = numbers(list(frames(path, 3)))  # what is left is a video, sampled evenly
    assert 0 < cut[0] < cut[1] < cut[2] < 89
    with pytest.raises(UsageError):
        next(frames(path, 0))


def test_stopping_early_closes_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    real = Path.open
    monkeypatch.setattr(Path, "open", lambda *args: opened.append(real(*args)) or opened[-1])
    sampled = frames(make_video(tmp_path / "a.mp4"), 10)
    next(sampled)
    assert not opened[-1].closed
    sampled.close()  # type: ignore[attr-defined]
    assert all(file.closed for file in opened)


def test_no_frame_is_kept(tmp_path: Path) -> None:
    """Not even in reference cycles, where they would wait for the collector."""
    path = make_video(tmp_path / "a.mp4", 60)
    gc.collect()
    gc.disable()
    try:
        assert len([frame.time for frame in frames(path, 60)]) == 60
        kept = sum(type(each) is av.VideoFrame for each in gc.get_objects())
    finally:
        gc.enable()
    assert kept <= 2


def test_a_jump_gives_the_frame_that_going_there_gives(shared: Path) -> None:
    """FaceForensics++'s files are of an x264 whose 4:4:4 a decoder must be told of to read it."""
    for path in sorted((shared / "videos" / "ffpp").rglob("*.mp4")):
        with av.open(str(path)) as container:
            frames = enumerate(container.decode(video=0))
            wanted = {n: f.to_ndarray(format="rgb24") for n, f in frames if n in (270, 301)}
        for number, pixels in wanted.items():
            (frame,) = read_frames(path, [number])
            assert frame.number == number
            difference = np.abs(frame.image.astype(int) - pixels)
            assert difference.mean() < 1  # another conversion to RGB


@pytest.mark.parametrize("ending", ["jpg", "mp4"])
@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "a pointer of git-LFS"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "a web page"),
    ],
)
def test_what_is_saved_in_place_of_a_file_is_named(
    tmp_path: Path, ending: str, content: bytes, what: str
) -> None:
    (path := tmp_path / f"a.{ending}").write_bytes(content)
    with pytest.raises(UnreadableError, match=f"is {what}, not a photograph or video"):
        list(read_frames(path, [0]))
