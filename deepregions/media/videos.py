"""Frames of a video by number, each decoded once, with few of them held.

The packets are listed first, undecoded: that gives the true display times, whatever the header
claims, and the keyframes. Then the decoder goes through the file once, jumping from keyframe to
keyframe where nothing between them is wanted. Jumping or not, the same frames come out.
"""

from __future__ import annotations

import logging
import os
from array import array
from bisect import bisect_right
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, cast

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorTrc, VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from deepregions.errors import UnreadableError, UnsupportedError
from deepregions.media.frames import Frame, Limits, MediaInfo, Progress
from deepregions.media.sampling import FrameChoice, Sampling, choose

logger = logging.getLogger(__name__)

# Containers whose demuxers read this one file only; playlists and devices are not among them.
CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,asf,flv,ogg"

_Timed = tuple[int, VideoFrame]  # a frame and its display time
_Orientation = tuple[bool, int, int]  # whether axes are swapped; then the steps along y and x

# Containers with an index of every frame: jumps in them land exactly.
_INDEXED = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
_NEAR = 16  # frames: below this, going on costs less than flushing the decoder's threads
_THREADS = 4  # each holds frames of its own, so more would make the memory depend on the machine
_HDR = (ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67)  # PQ and HLG (ITU-R BT.2100)
_NO_RATE = 25.0  # frames a second, where neither packets nor header say


class VideoSource:
    """A video's first stream of frames.

    Damaged parts are passed over; a frame that was lost there is replaced by the one on show before
    it, under that one's own number. Rotation and mirroring of the display matrix are applied,
    pixels are made square, high dynamic range is mapped to the standard one. References in the file
    to other files or addresses are refused.

    Raises:
        UnreadableError: No video, or one without frames.
        UnsupportedError: No video stream, no decoder for it, frames too large.
    """

    def __init__(
        self, path: Path, file: BinaryIO, limits: Limits, progress: Progress = lambda: None
    ) -> None:
        self._path = path
        self._file = file
        self._limits = limits
        self._progress = progress
        self._reformatter = VideoReformatter()  # one, as it keeps its tables
        self._damaged: set[int] = set()  # places in the file of packets that failed to decode
        self._keys: list[int] = []  # display times of keyframes, in the stream's time base
        self._number = self._corrupt = self._last_duration = 0  # of packets
        self._untimed = False  # whether packets have no display times
        with self._opened() as stream:
            times = self._listed(stream)
            self._aspect = _pixel_aspect(stream)
            self._second = 1 / float(stream.time_base or 1)
            self._times: NDArray[np.int64] = np.unique(np.array(times, dtype=np.int64))
            if self._untimed:  # by their place in the file, at the file's average rate
                self._times = np.arange(self._number)
                self._second = float(stream.average_rate or _NO_RATE)
                self._last_duration = 1
            self._info = self._described(stream)
        if not len(self._times):
            raise self._no_frame()

    @property
    def info(self) -> MediaInfo:
        """What the video is; the size is sure after the first frame, damage after the last."""
        damaged = self._corrupt + len(self._damaged)
        if not damaged:
            return self._info
        note = f"{damaged} of {self._number} packets are damaged"
        return replace(self._info, notes=(*self._info.notes, note))

    def choose(self, sampling: Sampling) -> FrameChoice:
        """Chooses the frames to look at (in the first round)."""
        return choose(self._times, self._end, self._second, sampling)

    def frames(self, numbers: Sequence[int]) -> Iterator[Frame]:
        """Yields the frames of these numbers, in order of time, each once.

        Raises:
            UnreadableError: Not one of them can be decoded.
        """
        wanted = sorted({number for number in numbers if 0 <= number < len(self._times)})
        found = 0
        orientation: _Orientation | None = None  # the stream's, which its frames repeat
        with self._opened() as stream:
            chosen = self._by_number if self._untimed else self._by_time
            for time, frame in chosen(stream, [int(self._times[n]) for n in wanted]):
                orientation = orientation or _orientation(frame)
                pixels = self._rgb(frame, orientation)
                if not found:  # what a header says may be wrong, or turned
                    self._info = replace(self._info, width=pixels.shape[1], height=pixels.shape[0])
                found += 1
                number = int(np.searchsorted(self._times, time, side="right")) - 1
                seconds = float(time - self._times[0]) / self._second
                yield Frame(number, seconds, pixels)
        if wanted and not found:
            raise self._no_frame()

    @property
    def _end(self) -> float:
        return float(self._times[-1]) + max(self._last_duration, 1)

    def _no_frame(self) -> UnreadableError:
        return UnreadableError(f"{self._path}: no frame of it can be decoded", "get another copy")

    @contextmanager
    def _opened(self) -> Iterator[VideoStream]:
        """Opens the first true video stream (a cover picture is none), from the file's start."""
        try:
            self._file.seek(0)
            with av.open(
                self._file,
                "r",
                io_open=refuse,
                buffer_size=1 << 18,
                metadata_errors="replace",
                container_options={"format_whitelist": CONTAINERS},
            ) as container:
                yield self._stream(container)
        except (MemoryError, av.error.MemoryError) as error:
            what = f"{self._path}: it needs more memory than there is"
            raise UnreadableError(what, "make it smaller") from error
        except (av.FFmpegError, OSError) as error:
            what = f"{self._path}: damaged or no video: {error.strerror or error}"
            raise UnreadableError(what, "play it to see") from error

    def _stream(self, container: InputContainer) -> VideoStream:
        path, most = self._path, self._limits.pixels
        streams = _true_streams(container)
        if not streams:
            raise UnsupportedError(f"{path}: no video in it", "give a video or a photograph")
        stream = streams[0]
        codec = stream.codec_context
        if codec is None:
            raise UnsupportedError(f"{path}: no decoder for its video", "convert it to H.264")
        if codec.width * codec.height > most:
            what = f"frames of {codec.width} x {codec.height} are more than {most:,} pixels"
            raise UnsupportedError(f"{path}: {what}", "make it smaller")
        codec.options = {"max_pixels": str(most)}  # sizes may change on the way
        stream.thread_type = "AUTO"
        codec.thread_count = min(_THREADS, os.cpu_count() or 1)
        return stream

    def _described(self, stream: VideoStream) -> MediaInfo:
        codec, frames, packets = stream.codec_context, len(self._times), self._number
        duration = (self._end - float(self._times[0])) / self._second if frames else 0.0
        width, height = self._square(codec.width, codec.height)
        container, notes = _container(stream), []
        if width * height > codec.width * codec.height:
            notes.append(f"pixels {self._aspect:.3g} times as wide as high, scaled to square ones")
        if (streams := len(_true_streams(container))) > 1:
            notes.append(f"the first of {streams} video streams")
        if self._untimed:
            notes.append("no display times; taken as evenly spaced")
        claimed = (container.duration or 0) / av.time_base
        if abs(claimed - duration) > max(1.0, 0.1 * duration) and claimed > 0:
            notes.append(f"the header says {claimed:.1f} s, the packets {duration:.1f} s")
        if stream.frames and abs(stream.frames - packets) > max(2, packets // 20):
            notes.append(f"the header says {stream.frames} frames, there are {packets}")
        if codec.color_trc in _HDR:
            notes.append("high dynamic range, mapped to the standard one")
        rate = frames / duration if duration > 0 else 0.0
        name = codec.codec.canonical_name
        return MediaInfo("video", width, height, frames, duration, rate, name, tuple(notes))

    def _demuxed(self, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
        container = _container(stream)
        try:
            for packet in container.demux(stream):
                self._progress()
                yield packet
        except (av.FFmpegError, IndexError) as error:
            # Cut short: what came before counts. IndexError: PyAV, of streams that begin late.
            logger.info("%s: reading stopped early: %s", container.name, error)

    def _listed(self, stream: VideoStream) -> array[int]:
        """Goes through the packets; returns the display times of those that are shown."""
        times = array("q")
        for packet in self._demuxed(stream):
            if not packet.size:
                continue
            self._number += 1
            self._corrupt += packet.is_corrupt
            if packet.pts is None:
                self._untimed = True
                continue
            if packet.is_keyframe:
                self._keys.append(packet.pts)
            if not packet.is_discard:  # those are decoded for others' sake, never shown
                times.append(packet.pts)
                self._last_duration = packet.duration or 0
        self._keys.sort()
        return times

    def _by_time(self, stream: VideoStream, wanted: Sequence[int]) -> Iterator[_Timed]:
        times, container = self._times, _container(stream)
        keys = self._keys if container.format.name in _INDEXED else []
        needed = frozenset(wanted)
        frames = self._decoded(stream, needed)
        ahead: _Timed | None = None
        position = given = int(times[0]) - 1
        for target in wanted:
            key = bisect_right(keys, target) - 1
            jump = key >= 0 and np.searchsorted(times, keys[key]) - np.searchsorted(times, position)
            shown = None
            if jump > _NEAR:
                if position < int(times[0]):
                    self._begin(stream)
                for landing in (keys[key], keys[0]):  # where the index is wrong, from the start
                    frames.close()
                    container.seek(landing, stream=stream)
                    frames = self._decoded(stream, needed)
                    shown, ahead = _advanced(frames, None, target)
                    if shown is not None:
                        break
            else:
                shown, ahead = _advanced(frames, ahead, target)
            position = target
            if shown is not None and shown[0] > given:
                given = shown[0]
                yield shown

    def _begin(self, stream: VideoStream) -> None:
        """Decodes the first packet, where x264 names itself: 4:4:4 was wrong until 151."""
        for packet in self._demuxed(stream):
            if packet.size:
                _frames(packet, self._damaged)
                return

    def _decoded(
        self, stream: VideoStream, needed: frozenset[int]
    ) -> Generator[_Timed, None, None]:
        """Yields frames, with their times, in display order from where the container stands.

        Frames that no other frame refers to are not decoded unless they are needed. After a jump,
        frames shown before the keyframe refer to what was jumped over, and are left out.
        """
        codec = stream.codec_context
        picky = codec.name in ("h264", "hevc")  # decoders that heed skip_frame packet by packet
        first: int | None = None
        for packet in self._demuxed(stream):
            if first is None:
                first = packet.pts
            if picky:
                codec.skip_frame = (
                    "NONREF" if packet.size and packet.pts not in needed else "DEFAULT"
                )
            for frame in _frames(packet, self._damaged):
                if frame.pts is not None and first is not None and frame.pts >= first:
                    yield frame.pts, frame

    def _by_number(self, stream: VideoStream, wanted: Sequence[int]) -> Iterator[_Timed]:
        """For files whose packets have no times: all is decoded, and counted."""
        needed = frozenset(wanted)
        index = 0
        for packet in self._demuxed(stream):
            for frame in _frames(packet, self._damaged):
                if index in needed:
                    yield index, frame
                index += 1

    def _square(self, width: int, height: int) -> tuple[int, int]:
        """The size of a frame whose pixels are made square; none of them is lost for it."""
        most = self._limits.pixels
        if self._aspect == 1 or width * height * max(self._aspect, 1 / self._aspect) > most:
            return width, height
        return round(width * max(self._aspect, 1)), round(height / min(self._aspect, 1))

    def _rgb(self, frame: VideoFrame, orientation: _Orientation) -> NDArray[np.uint8]:
        """Returns a frame's pixels, (H, W, 3), square, turned; HDR as FFmpeg maps it to sRGB."""
        colours: dict[str, Any] = {}
        if frame.color_trc in _HDR:
            colours["dst_color_trc"] = ColorTrc.IEC61966_2_1
            colours["dst_color_primaries"] = ColorPrimaries.BT709
        size = self._square(frame.width, frame.height)
        rgb = self._reformatter.reformat(frame, *size, "rgb24", **colours)
        image = cast("NDArray[np.uint8]", rgb.to_ndarray())
        swapped, down, right = orientation
        if swapped:
            image = image.transpose(1, 0, 2)
        return np.ascontiguousarray(image[::down, ::right])


def _pixel_aspect(stream: VideoStream) -> float:
    """How many times as wide as high a pixel is; 1 where that is not said, or cannot be."""
    aspect = float(stream.sample_aspect_ratio or 1)
    return aspect if 0.25 <= aspect <= 4 and abs(aspect - 1) > 0.01 else 1.0


def refuse(*_: object) -> NoReturn:
    """Opens nothing, whatever a video refers to."""
    raise PermissionError("a video may not open other files or addresses")


def _container(stream: VideoStream) -> InputContainer:
    return cast("InputContainer", stream.container)


def _true_streams(container: InputContainer) -> list[VideoStream]:
    cover = Disposition.attached_pic
    return [one for one in container.streams.video if not one.disposition & cover]


def _advanced(
    frames: Iterator[_Timed], ahead: _Timed | None, target: int
) -> tuple[_Timed | None, _Timed | None]:
    """Returns the frame on show at ``target``, and the next where that one had to be decoded."""
    shown = None
    current = ahead or next(frames, None)
    while current is not None and current[0] <= target:
        shown, current = current, None
        if shown[0] < target:
            current = next(frames, None)
    return shown, current


def _frames(packet: Packet[VideoStream], damaged: set[int]) -> list[VideoFrame]:
    """Decodes a packet; one that fails gives no frame, and its place goes to ``damaged``."""
    try:
        return packet.decode()
    except av.error.MemoryError:
        raise
    except av.FFmpegError as error:
        logger.debug("packet at %s: %s", packet.pts, error)
        damaged.add(packet.pos if packet.pos is not None else -1)
        return []


def _orientation(frame: VideoFrame) -> _Orientation:
    """Returns how a frame's display matrix turns it (FFmpeg's libavutil/display.h).

    Not for every frame: one whose side data was looked at is part of a reference cycle (PyAV 18).
    """
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return False, 1, 1
    a, b, _, c, d, *_ = np.frombuffer(bytes(matrix), dtype=np.int32).tolist()
    swapped = abs(b) + abs(c) > abs(a) + abs(d)
    if swapped:
        a, d = c, b
    return swapped, -1 if d < 0 else 1, -1 if a < 0 else 1
