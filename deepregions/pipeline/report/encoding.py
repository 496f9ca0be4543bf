"""Writing pictures as a video, at any times, one after the other."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from av.codec.codec import UnknownCodecError
from av.container import OutputContainer
from av.video.reformatter import ColorRange, Colorspace
from av.video.stream import VideoStream
from PIL import Image

_BASE = Fraction(1, 60000)  # seconds; MPEG-4 allows 1/65535, and thirds of NTSC's frames are whole
_BT709 = 1  # colours as H.264, Annex E, numbers them: primaries, transfer and matrix


class Encoder:
    """An MP4 file: H.264 where PyAV was built with x264, else MPEG-4; no sound.

    Memory does not grow with the number of pictures: only those of the encoder's look-ahead are
    held.

    Args:
        path: The file to write to.
        name: What errors call it.
        rate: Pictures a second, about; it shares out the bits.

    Raises:
        OSError: In all methods: it cannot be written.
    """

    def __init__(self, path: Path, name: Path, rate: float) -> None:
        self._name = name
        self._rate = Fraction(rate).limit_denominator(1001)
        self._last = -1
        self._stream: VideoStream | None = None
        with self._plainly():
            self._container: OutputContainer = av.open(
                str(path), "w", format="mp4", options={"movflags": "+faststart"}
            )

    def __enter__(self) -> Encoder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._plainly(quiet=kind is not None):
            try:
                if kind is None and self._stream is not None:
                    self._container.mux(self._stream.encode(None))
            finally:
                self._container.close()

    def add(self, picture: Image.Image, time: float) -> None:
        """Adds a picture.

        Args:
            picture: RGB, with even sides, all of one size.
            time: When it is shown, in seconds; later than the last.
        """
        with self._plainly():
            if self._stream is None:
                self._stream = self._started(*picture.size)
            frame = av.VideoFrame.from_ndarray(np.asarray(picture), format="rgb24").reformat(
                format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
            )
            self._last = max(self._last + 1, round(time / _BASE))
            frame.pts, frame.time_base = self._last, _BASE
            self._container.mux(self._stream.encode(frame))

    def _started(self, width: int, height: int) -> VideoStream:
        name, options = _codec()
        stream = self._container.add_stream(name, rate=self._rate, options=options)
        if not isinstance(stream, VideoStream):
            raise TypeError(f"{name} is no video encoder")
        codec = stream.codec_context
        codec.width, codec.height, codec.pix_fmt = width, height, "yuv420p"
        codec.time_base = _BASE
        codec.color_range, codec.colorspace = ColorRange.MPEG, Colorspace.ITU709
        codec.color_primaries = codec.color_trc = _BT709
        return stream

    def _plainly(self, *, quiet: bool = False) -> _Plainly:
        return _Plainly(self._name, quiet=quiet)


class _Plainly:
    """Turns FFmpeg's errors into the system's; or drops them, where another is on its way."""

    def __init__(self, name: Path, *, quiet: bool) -> None:
        self._name = name
        self._quiet = quiet

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, av.FFmpegError):
            return False
        if not self._quiet:
            raise OSError(error.errno, error.strerror, str(self._name)) from error
        return True


def _codec() -> tuple[str, dict[str, str]]:
    """An encoder's name and settings: nearly without visible loss, and fast."""
    try:
        av.Codec("libx264", "w")
    except UnknownCodecError:
        return "mpeg4", {"qscale": "3", "flags": "+qscale"}
    return "libx264", {"crf": "20", "preset": "veryfast"}
