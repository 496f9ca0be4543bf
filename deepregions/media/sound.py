"""Sound of one video into a silent copy of it, in a process of its own, not encoded again."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from heapq import merge
from pathlib import Path
from typing import Any

import av

from deepregions.media.sandbox import isolated
from deepregions.media.videos import CONTAINERS, refuse

_HELD = {"aac", "ac3", "alac", "eac3", "flac", "mp2", "mp3", "opus"}  # by MP4, and played
_SILENT, _OTHER = 3, 4
_SECONDS, _MEMORY = 600, 3 << 30


def add_sound(source: Path, silent: Path) -> str:
    """Gives an MP4 file another's sound, in a process with limits; returns why there is none."""
    out = silent.with_name(f"{silent.name}.sound")
    command = isolated(__name__, *(str(path.absolute()) for path in (source, silent, out)))
    try:
        code = subprocess.run(
            command, capture_output=True, timeout=_SECONDS, check=False
        ).returncode
        if code == 0:
            out.replace(silent)
    except subprocess.TimeoutExpired:
        code = 1
    finally:
        out.unlink(missing_ok=True)
    if code in (0, _SILENT):
        return ""
    return "MP4 cannot hold it" if code == _OTHER else "it cannot be read"


def main() -> int:
    """Copies packets in the order of their times, from a video with sound and a silent one."""
    source, silent, out = sys.argv[2:]
    with suppress(ImportError):  # Windows
        import resource  # noqa: PLC0415

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    options = {"format_whitelist": CONTAINERS}
    with (
        Path(source).open("rb") as file,
        av.open(file, "r", io_open=refuse, container_options=options) as heard,
        av.open(silent) as seen,
    ):
        if not heard.streams.audio:
            return _SILENT
        if heard.streams.audio[0].codec_context.name.removesuffix("float") not in _HELD:
            return _OTHER
        video = heard.streams.video[0]
        begin = (video.start_time or 0) * Fraction(video.time_base or 1)
        fast = {"movflags": "+faststart"}
        with av.open(out, "w", format="mp4", options=fast) as written:
            parts = [
                _moved(container, stream, written.add_stream_from_template(stream), start)
                for container, stream, start in (
                    (seen, seen.streams.video[0], Fraction(0)),
                    (heard, heard.streams.audio[0], begin),
                )
            ]
            for _, _, packet in merge(*parts, key=lambda part: part[:2]):
                written.mux(packet)
    return 0


def _moved(container: Any, stream: Any, target: Any, begin: Fraction) -> Iterator[Any]:
    """Yields the time, a number and the packet of what begins no earlier than at ``begin``."""
    shift = round(begin / stream.time_base)
    for packet in container.demux(stream):
        if packet.dts is None or packet.pts is None or packet.pts < shift:
            continue
        packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
        time = packet.dts * Fraction(packet.time_base)
        packet.stream = target
        yield time, target.index, packet
