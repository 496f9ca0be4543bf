"""Frames of a video, evenly spaced in time, each decoded once, with few of them held.

The packets are listed first, undecoded (a fraction of a millisecond each): that gives the true
display times, whatever the header claims, and the keyframes. The frames wanted are chosen from
these times; then the decoder goes through the file once, jumping from keyframe to keyframe where
nothing between them is wanted. Jumping or not, the same frames come out.
"""

from __future__ import annotations

import logging
from array import array
from bisect import bisect_right
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import av
import numpy as np
import torch
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray
from torch import Tensor

from deepregions.errors import UnreadableError, UnsupportedError, UsageError
from deepregions.media.images import MAX_PIXELS, check_file

logger = logging.getLogger(__name__)

# Containers whose demuxers read this one file only; playlists and devices are not among them.
CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,asf,flv,ogg"

_SUFFIXES = "3gp asf avi flv m2ts m4v mkv mov mp4 mpeg mpg mts ogv ts webm wmv"
VIDEO_SUFFIXES = frozenset(f".{suffix}" for suffix in _SUFFIXES.split())

_Timed = tuple[int, VideoFrame]  # a frame and its display time

# Containers with an index of every frame: jumps in them land exactly.
_INDEXED = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
_NEAR = 16  # frames: below this, going on costs less than flushing the decoder's threads


@dataclass
class Frame:
    """A frame of a video, or a photograph.

    Attributes:
        number: Its place in the video's display order, from 0; 0 for a photograph.
        time: When it is shown, in seconds from the first frame.
        image: (3, H, W) uint8 RGB, upright; in memory its channels come last.
    """

    number: int
    time: float
    image: Tensor


@dataclass
class _Packets:
    """What a file's packets say: all in the stream's time base."""

    times: array[int] = field(default_factory=lambda: array("q"))
    keys: list[int] = field(default_factory=list)  # display times of keyframes
    last_duration: int = 0
    number: int = 0
    untimed: bool = False


def sample_video(path: Path, count: int) -> Iterator[Frame]:
    """Yields frames evenly spaced in time: those on show in the middle of ``count`` intervals.

    Where the video has no more than ``count`` frames, each comes once. Damaged parts are passed
    over; frames that were lost there are replaced by the one on show before them.

    Args:
        path: A video file. Only this file is read: references to other files or addresses in it
            are refused.
        count: How many frames, at most.

    Yields:
        Frames in order of time; rotation and mirroring of the file's display matrix are applied.

    Raises:
        UnreadableError: Not there, empty, no video, or not one frame of it can be decoded.
        UnsupportedError: No regular file, no video stream, no decoder for it, frames too large.
        UsageError: ``count`` is below 1.
    """
    if count < 1:
        raise UsageError(f"{count} frames of a video", "ask for at least 1")
    found = 0
    with _opened(path) as (container, stream):
        packets = _listed(container, stream)
    with _opened(path) as (container, stream):
        if packets.untimed:
            chosen = _by_number(container, stream, packets.number, count)
        else:
            chosen = _by_time(container, stream, packets, count)
        for number, seconds, frame in chosen:
            found += 1
            yield Frame(number, seconds, _upright(frame))
    if not found:
        raise UnreadableError(f"{path}: no frame of it can be decoded", "get another copy")


@contextmanager
def _opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Opens a file's first true video stream (a cover picture is none)."""
    check_file(path)
    try:
        with (
            path.open("rb") as file,
            av.open(
                file,
                "r",
                io_open=_refuse,
                buffer_size=1 << 18,
                metadata_errors="replace",
                container_options={"format_whitelist": CONTAINERS},
            ) as container,
        ):
            yield container, _video_stream(path, container)
    except (av.FFmpegError, OSError) as error:
        reason = error.strerror or error
        raise UnreadableError(f"{path}: damaged or no video: {reason}", "play it to see") from error


def _refuse(*_: object) -> NoReturn:
    raise PermissionError("a video may not open other files or addresses")


def _video_stream(path: Path, container: InputContainer) -> VideoStream:
    cover = Disposition.attached_pic
    streams = [one for one in container.streams.video if not one.disposition & cover]
    if not streams:
        raise UnsupportedError(f"{path}: no video in it", "give a video or a photograph")
    stream = streams[0]
    if stream.codec_context is None:
        raise UnsupportedError(f"{path}: no decoder for its video", "convert it to H.264")
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > MAX_PIXELS:
        raise UnsupportedError(
            f"{path}: frames of {width} x {height} are more than {MAX_PIXELS:,} pixels",
            "make it smaller",
        )
    stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}  # sizes may change on the way
    stream.thread_type = "AUTO"
    return stream


def _demuxed(container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
    try:
        yield from container.demux(stream)
    except (av.FFmpegError, IndexError) as error:
        # A file cut short: what came before counts. IndexError: PyAV, of streams that begin late.
        logger.info("%s: reading stopped early: %s", container.name, error)


def _listed(container: InputContainer, stream: VideoStream) -> _Packets:
    packets = _Packets()
    for packet in _demuxed(container, stream):
        if not packet.size:
            continue
        packets.number += 1
        if packet.pts is None:
            packets.untimed = True
            continue
        if packet.is_keyframe:
            packets.keys.append(packet.pts)
        if not packet.is_discard:  # those are decoded for others' sake, never shown
            packets.times.append(packet.pts)
            packets.last_duration = packet.duration or 0
    packets.keys.sort()
    return packets


def _chosen(times: NDArray[np.int64], last_duration: int, count: int) -> list[int]:
    """Returns the display times on show in the middle of ``count`` equal intervals, each once."""
    if len(times) <= count:
        return [int(time) for time in times]
    start, end = float(times[0]), float(times[-1]) + max(last_duration, 1)
    middles = start + (np.arange(count) + 0.5) * (end - start) / count
    shown = np.unique(np.searchsorted(times, middles, side="right") - 1)
    return [int(time) for time in times[shown]]


def _by_time(
    container: InputContainer, stream: VideoStream, packets: _Packets, count: int
) -> Iterator[tuple[int, float, VideoFrame]]:
    times = np.unique(np.array(packets.times, dtype=np.int64))
    wanted = _chosen(times, packets.last_duration, count)
    keys = packets.keys if container.format.name in _INDEXED else []
    needed = frozenset(wanted)
    frames = _decoded(container, stream, needed)
    ahead: _Timed | None = None
    start = int(times[0]) if wanted else 0
    position = given = start - 1
    for target in wanted:
        key = bisect_right(keys, target) - 1
        jump = key >= 0 and np.searchsorted(times, keys[key]) - np.searchsorted(times, position)
        shown = None
        if jump > _NEAR:
            for landing in (keys[key], keys[0]):  # where the index is wrong, from the start
                frames.close()
                container.seek(landing, stream=stream)
                frames = _decoded(container, stream, needed)
                shown, ahead = _advanced(frames, None, target)
                if shown is not None:
                    break
        else:
            shown, ahead = _advanced(frames, ahead, target)
        position = target
        if shown is not None and shown[0] > given:
            given = shown[0]
            seconds = float((given - start) * (stream.time_base or 1))
            yield int(np.searchsorted(times, given)), seconds, shown[1]


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


def _decoded(
    container: InputContainer, stream: VideoStream, needed: frozenset[int]
) -> Generator[_Timed, None, None]:
    """Yields frames, with their times, in display order from where the container stands.

    Frames that no other frame refers to are not decoded unless they are needed (a third to a half
    of H.264's time). After a jump, frames shown before the keyframe refer to what was jumped
    over, and are left out.
    """
    codec = stream.codec_context
    picky = codec.name in ("h264", "hevc")  # decoders that heed skip_frame packet by packet
    first: int | None = None
    for packet in _demuxed(container, stream):
        if first is None:
            first = packet.pts
        if picky:
            codec.skip_frame = "NONREF" if packet.size and packet.pts not in needed else "DEFAULT"
        for frame in _frames(packet):
            if frame.pts is not None and first is not None and frame.pts >= first:
                yield frame.pts, frame


def _frames(packet: Packet[VideoStream]) -> list[VideoFrame]:
    try:
        return packet.decode()
    except av.FFmpegError as error:
        logger.debug("packet at %s: %s", packet.pts, error)
        return []


def _by_number(
    container: InputContainer, stream: VideoStream, number: int, count: int
) -> Iterator[tuple[int, float, VideoFrame]]:
    """For files whose packets have no times: evenly by number, at the file's average rate."""
    wanted = frozenset(_chosen(np.arange(number), 1, count))
    rate = float(stream.average_rate or 25)
    frames = (frame for packet in _demuxed(container, stream) for frame in _frames(packet))
    for index, frame in enumerate(frames):
        if index in wanted:
            yield index, index / rate, frame


def _upright(frame: VideoFrame) -> Tensor:
    """Returns a frame as (3, H, W) uint8 RGB, turned as its display matrix says.

    The matrix (FFmpeg's libavutil/display.h) maps (x, y), y down, to (a x + c y, b x + d y); here
    it is one of the eight that keep the pixel grid, or taken as the nearest.
    """
    image = torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1)
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return image
    a, b, _, c, d, *_ = np.frombuffer(bytes(matrix), dtype=np.int32).tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        image, a, d = image.transpose(1, 2), c, b
    flips = [axis for axis, sign in ((2, a), (1, d)) if sign < 0]
    return image.flip(flips) if flips else image
