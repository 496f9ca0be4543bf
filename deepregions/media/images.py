"""Reading photographs and animations: header first, upright, 8 bits a channel, RGB."""

import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, UnidentifiedImageError

from deepregions.errors import UnreadableError, UnsupportedError
from deepregions.media.frames import DEFAULT_LIMITS, Frame, Limits, MediaInfo, Progress
from deepregions.media.kinds import HEAD, HEIC_BRANDS, is_drawing, is_sound, opened
from deepregions.media.sampling import FrameChoice, Sampling, choose

# Formats whose decoders are part of Pillow itself: no EPS (runs Ghostscript), no stubs. AVIF comes
# with Pillow 11.3, HEIF with pillow-heif. A JPEG of several pictures (MPO, as phones make) is read
# as JPEG.
FORMATS = ("AVIF", "BMP", "GIF", "HEIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")

_MOVING = ("AVIF", "GIF", "PNG", "WEBP")  # whose frames are shown one after the other
_SHORTEST, _DEFAULT = 0.011, 0.1  # seconds; shorter ones are shown for so long, as browsers do

# What Pillow raises on broken files (found by feeding it mutated ones).
_BROKEN: tuple[type[Exception], ...] = (OSError, SyntaxError, ValueError, EOFError, TypeError)
_BROKEN += (ArithmeticError, LookupError, AttributeError, RuntimeError, struct.error, zlib.error)
_BROKEN += (ImageCms.PyCMSError,)

_ALIKE = 3  # grey levels: profiles that differ less are the same to the eye
_ORIENTATION = 0x0112
_LUMA_SUM = 3688  # of the luma table in annex K of ITU-T T.81, which is that of quality 50
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_image(path: Path, *, max_pixels: int = DEFAULT_LIMITS.pixels) -> NDArray[np.uint8]:
    """Reads a photograph, or the first frame of an animation: (H, W, 3) uint8 RGB.

    It is upright, without transparency, of 8 bits a channel, in sRGB. Nothing is decoded before its
    size is known to be allowed.

    Raises:
        UnreadableError: Not there, empty, no image, damaged, or too large.
        UnsupportedError: No regular file, or a kind of image that is not read here.
    """
    with opened(path) as file:
        return ImageSource(path, file, Limits(pixels=max_pixels)).pixels


class ImageSource:
    """A photograph, which Pillow may have opened, read and refused as :func:`read_image` does."""

    def __init__(self, path: Path, file: BinaryIO | Image.Image, limits: Limits) -> None:
        with opened_image(path, file, limits) as image:
            notes = tuple(_notes(image))
            quality = _jpeg_quality(getattr(image, "quantization", None))
            self.pixels, codec = _pixels(path, image), (image.format or "").lower()
        height, width, _ = self.pixels.shape
        self.info = MediaInfo("image", width, height, 1, 0.0, 0.0, codec, notes, quality)

    def choose(self, _: Sampling) -> FrameChoice:
        """Chooses the one frame."""
        return FrameChoice((0,), 1)

    def frames(self, numbers: Sequence[int]) -> Iterator[Frame]:
        """Yields the photograph, if it is asked for."""
        if 0 in numbers:
            yield Frame(0, 0.0, self.pixels)


class OpenImage:
    """A picture in memory, as :class:`~deepregions.media.reader.OpenMedia` gives a file's."""

    choice = None

    def __init__(self, image: Image.Image, path: Path) -> None:
        self.path = path
        self.info: MediaInfo | None = None
        self._image = image

    def batches(self, _: int = 1) -> Iterator[list[Frame]]:
        """Yields the one frame; raises what :class:`ImageSource` raises."""
        source = ImageSource(self.path, self._image, DEFAULT_LIMITS)
        self.info = source.info
        yield [*source.frames([0])]

    def read(self, _: Sequence[int], at_once: int = 1) -> Iterator[list[Frame]]:
        """Yields the frame again."""
        return self.batches(at_once)

    def provenance(self) -> None:
        """Says nothing: what is in memory is no file."""


class AnimationSource:
    """An animated picture, as a film; damage ends it."""

    def __init__(self, path: Path, file: BinaryIO, limits: Limits, progress: Progress) -> None:
        self._path, self._file, self._limits, self._progress = path, file, limits, progress
        self._begins: list[float] = []  # seconds
        self._end = 0.0
        with opened_image(path, file, limits) as image:
            notes = tuple(note for note in _notes(image) if note != _FIRST)
            for seconds in self._played(image):
                self._begins.append(self._end)
                self._end += seconds
            (width, height), codec = _oriented(image).size, (image.format or "").lower()
        frames = len(self._begins)
        rate = frames / self._end
        self.info = MediaInfo("video", width, height, frames, self._end, rate, codec, notes)

    def choose(self, sampling: Sampling) -> FrameChoice:
        """Chooses the frames to look at (in the first round)."""
        return choose(np.array(self._begins), self._end, 1.0, sampling)

    def frames(self, numbers: Sequence[int]) -> Iterator[Frame]:
        """Yields the frames of these numbers, in order of time, each once."""
        wanted = frozenset(numbers)
        with opened_image(self._path, self._file, self._limits) as image:
            for number, _ in enumerate(self._played(image)):
                if number in wanted:
                    yield Frame(number, self._begins[number], _pixels(self._path, image))

    def _played(self, image: Image.Image) -> Iterator[float]:
        """Goes from frame to frame; yields how long each is shown, in seconds."""
        # An APNG can have a picture before its first frame that is not part of the animation.
        first = int(getattr(image, "default_image", False))
        frames = len(self._begins) or getattr(image, "n_frames", 1) - first
        for number in range(first, first + frames):
            self._progress()
            try:
                image.seek(number)
                image.load()
            except _BROKEN:
                if number == first:
                    raise
                return
            seconds = float(image.info.get("duration") or 0) / 1000
            yield seconds if seconds >= _SHORTEST else _DEFAULT


def is_moving(path: Path, file: BinaryIO, limits: Limits) -> bool:
    """Returns whether a picture has frames that are shown one after the other."""
    with suppress(UnreadableError, UnsupportedError), opened_image(path, file, limits) as image:
        return image.format in _MOVING and bool(getattr(image, "is_animated", False))
    return False


def _open(path: Path, file: BinaryIO | Image.Image) -> AbstractContextManager[Image.Image]:
    if isinstance(file, Image.Image):
        return nullcontext(file)  # it stays open: it is the caller's
    file.seek(0)
    try:
        return Image.open(file, formats=_formats())
    except UnidentifiedImageError as error:
        raise _unidentified(path, file) from error


@contextmanager
def opened_image(path: Path, file: BinaryIO | Image.Image, limits: Limits) -> Iterator[Image.Image]:
    """Opens a picture whose size is allowed; errors in the block become this package's own."""
    smaller = "make it smaller"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own size warning, odd EXIF, odd palettes
        try:
            with _open(path, file) as image:
                width, height = image.size
                if width * height > limits.pixels:
                    what = f"{path}: {width} x {height} pixels are more than {limits.pixels:,}"
                    raise UnreadableError(what, smaller)
                yield image
        except Image.DecompressionBombError as error:  # before it even tells the size
            most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
            raise UnreadableError(f"{path}: its pixels are more than {most:,}", smaller) from error
        except MemoryError as error:
            what = f"{path}: it needs more memory than there is"
            raise UnreadableError(what, smaller) from error
        except _BROKEN as error:
            raise UnreadableError(f"{path}: damaged image: {error}", "get another copy") from error


def _pixels(path: Path, image: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(_rgb(path, _oriented(image)))


def _jpeg_quality(tables: dict[int, Sequence[int]] | None) -> int | None:
    """Returns the quality of libjpeg whose luma table has this one's sum; too high below 20."""
    if not tables or len(tables.get(0, ())) != 64:
        return None
    percent = 100 * sum(tables[0]) / _LUMA_SUM
    return min(100, max(1, round(100 - percent / 2 if percent <= 100 else 5000 / percent)))


def _formats() -> list[str]:
    Image.init()  # registers all; does nothing the second time
    if "HEIF" not in Image.OPEN:
        with suppress(ImportError):  # the extra "heif"
            import pillow_heif  # noqa: PLC0415 - it is not always there

            pillow_heif.register_heif_opener(thumbnails=False)
    return [name for name in FORMATS if name in Image.OPEN]


_FIRST = "the first of several frames"


def _notes(image: Image.Image) -> Iterator[str]:
    """Says what is lost on the way to one upright picture of 8 bits RGB; decodes nothing."""
    try:
        several = getattr(image, "is_animated", False)
    except _BROKEN:  # the first can be whole where the second is damaged
        several = True
    if several:
        yield _FIRST
    tiles: list[Any] = getattr(image, "tile", [])
    if image.mode.startswith("I") or any("16" in str(tile[3]) for tile in tiles):
        yield "16 bits a channel, shown in 8"
    mode = image.mode if image.mode in _PROFILED else "RGB"
    if _to_srgb(mode, image.info.get("icc_profile")):
        yield "colours of another profile, shown in sRGB"
    elif image.mode == "CMYK":
        yield "CMYK, shown in RGB without a colour profile"
    if image.has_transparency_data:
        yield "transparency is left out"


def _oriented(image: Image.Image) -> Image.Image:
    image.load()  # which already turns a TIFF, and takes its orientation away
    try:
        transpose = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    except _BROKEN:  # unreadable EXIF says nothing about the pixels
        transpose = None
    return image if transpose is None else image.transpose(transpose)


_PROFILED = ("CMYK", "L", "RGB")  # modes of the profiles that are looked at


def _to_srgb(mode: str, profile: bytes | None) -> ImageCms.ImageCmsTransform | None:
    """Returns what changes a mode's colours to sRGB, if a file's profile is whole and another."""
    if not profile:
        return None
    steps = np.linspace(0, 255, 6, dtype=np.uint8)
    samples = Image.fromarray(np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(6, 36, 3))
    try:
        srgb = ImageCms.createProfile("sRGB")
        change = ImageCms.buildTransform(BytesIO(profile), srgb, mode, "RGB")
        shown = change.apply(samples.convert(mode))
    except _BROKEN:  # damaged, or made for other colours than these
        return None
    taken = samples.convert(mode).convert("RGB")
    differ = np.abs(np.asarray(shown, dtype=int) - np.asarray(taken)).max() > _ALIKE
    return change if differ else None


def _rgb(path: Path, image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I"):
        wide = np.array(image).astype(np.int32)
        # "I" is 16 bits too, as some decoders give them; wider ones have no set scale.
        if image.mode != "I" or (wide.min() >= 0 and wide.max() <= 0xFFFF):
            return Image.fromarray(((wide + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise UnsupportedError(
            f"{path}: {image.mode} pixels (32 bits) have no set range", "convert it to 8 or 16 bits"
        )
    if image.mode in ("P", "PA", "La", "RGBa"):  # these go to RGB only by way of RGBA
        image = image.convert("RGBA")
    if image.mode not in _PROFILED:
        image = image.convert("RGB")
    if change := _to_srgb(image.mode, profile):
        return change.apply(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _unidentified(path: Path, file: BinaryIO) -> UnreadableError | UnsupportedError:
    """Names the kinds that people have and that are not read here."""
    file.seek(0)
    head = file.read(HEAD)
    if head[4:8] == b"ftyp" and head[8:12] in HEIC_BRANDS and "HEIF" not in Image.OPEN:
        how = "pip install 'deepregions[heif]', or convert it to JPEG"
        return UnsupportedError(f"{path}: HEIC is not read without pillow-heif", how)
    if is_drawing(head):
        return UnsupportedError(f"{path}: SVG is a drawing, no photograph", "give a photograph")
    if is_sound(head):
        return UnsupportedError(f"{path}: no video in it", "give a video or a photograph")
    return UnreadableError(
        f"{path}: no image that is read here", f"the formats are {', '.join(_formats())}"
    )
