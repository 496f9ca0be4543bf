"""``deepregions benchmark``: how fast this machine is, and what that costs."""

from __future__ import annotations

import itertools
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from deepregions.commands import checks
from deepregions.commands.options import NetworkOptions, ScoringOptions
from deepregions.errors import DeepregionsError, UsageError

if TYPE_CHECKING:
    from deepregions.pipeline.analyser import Analyser

_CLIP = 10  # seconds of video
_RATE = 2.0  # frames of it a second that are looked at
_WARM = 31  # photographs that do not count: until as many as possible are scored together


def benchmark(
    *,
    networks: NetworkOptions,
    scoring: ScoringOptions,
    seconds: float = 20.0,
    price: float | None = None,
    json: bool = False,
) -> None:
    """Measures how fast this machine scores photographs and videos.

    Scores a portrait of 512 x 512 pixels with one person, again and again, and a clip of it, as
    `deepregions detect` does without --out; then tells what a million of such photographs and
    1,000 hours of such video take. Nothing else should run meanwhile. Ctrl-C prints what was
    measured so far. It takes about three times --seconds.

    Args:
        networks: Which networks are run.
        scoring: How they are run.
        seconds: How long photographs, and then videos, are scored.
        price: What one hour of this machine costs, to tell what the work costs.
        json: Print one JSON object instead of a table.
    """
    from deepregions.commands.demo import portrait, write_clip
    from deepregions.media import Sampling

    if not 0 < seconds <= 3600:
        raise UsageError(f"--seconds must be above 0 and at most 3600, not {seconds:g}")
    if price is not None and not 0 <= price < float("inf"):
        raise UsageError(f"--price must be at least 0, not {price:g}")
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        photograph, clip = Path(name) / "portrait.png", Path(name) / "clip.mp4"
        picture = portrait()
        picture.save(photograph)
        write_clip(clip, [picture] * _CLIP)
        try:
            figures["start_to_answer_s"] = _start_to_answer(photograph, networks, scoring)
            sampling = Sampling("rate", rate=_RATE)
            loaded = networks.load_for(scoring)
            analyser = scoring.analyser(loaded, pictures=False, sampling=sampling)
            rate = _rate(analyser, photograph, seconds, _WARM)
            figures["photographs_per_s"] = rate
            figures["hours_per_million_photographs"] = 1e6 / rate / 3600
            rate = _CLIP * _rate(analyser, clip, seconds, 1)
            figures["video_s_per_s"] = rate
            figures["hours_per_1000_hours_of_video"] = 1000 / rate
        finally:
            if figures:
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
                figures["peak_memory_mb"] = peak / (1e6 if sys.platform == "darwin" else 1e3)
                _print(figures, price, json)


def _start_to_answer(photograph: Path, networks: NetworkOptions, scoring: ScoringOptions) -> float:
    """Seconds that ``detect`` takes: of two runs the faster one's, as the first reads the disk."""
    words = [sys.executable, "-P", "-m", "deepregions", "detect", str(photograph)]
    words += ["--bundle", *map(str, networks.bundle)] if networks.bundle else []
    chosen = asdict(scoring) | asdict(networks) | {"bundle": None}
    for name, value in chosen.items():
        words += [] if value is None else [f"--{name.replace('_', '-')}={value}"]
    taken = []
    for _ in checks.progress(range(2), "starting"):
        begun = time.perf_counter()
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        taken.append(time.perf_counter() - begun)
        if done.returncode:
            said = done.stderr.strip().rpartition("deepregions: error: ")[2]
            raise DeepregionsError(f"detect: {said}")
    return min(taken)


def _rate(analyser: Analyser, path: Path, seconds: float, warm: int) -> float:
    from deepregions.media import MediaReader

    begun = 0.0
    with (
        MediaReader() as reader,
        checks.counted(path.stem, "s") as show,
        closing(analyser.analyse(itertools.repeat(path), reader)) as results,  # type: ignore[type-var]
    ):
        for number, result in enumerate(results, 1):
            if result.score is None:
                raise DeepregionsError(f"the portrait cannot be scored: {result.reason}")
            if number <= warm:
                begun = time.perf_counter()
                continue
            spent = time.perf_counter() - begun
            show(min(round(spent), round(seconds)), round(seconds))
            if spent >= seconds:
                return (number - warm) / spent
    raise AssertionError("inputs never end")


_SHOWN = {
    "start_to_answer_s": ("deepregions detect, start to answer", "s"),
    "photographs_per_s": ("photographs per second", ""),
    "hours_per_million_photographs": ("a million photographs", "h"),
    "video_s_per_s": ("seconds of video per second, 2 frames/s", ""),
    "hours_per_1000_hours_of_video": ("1,000 hours of such video", "h"),
    "peak_memory_mb": ("most memory, without what decodes", "MB"),
}


def _print(figures: Mapping[str, float], price: float | None, json: bool) -> None:
    if json:
        told = {name: round(value, 3) for name, value in figures.items()}
        checks.print_json(told | ({} if price is None else {"price_per_hour": price}))
        return
    rows = []
    for name, value in figures.items():
        what, unit = _SHOWN[name]
        cost = f"{price * value:,.2f}" if price is not None and name.startswith("hours") else ""
        rows.append((what, f"{value:,.1f} {unit}".rstrip(), cost))
    checks.print_table(
        ("", "measured", "cost" if price is not None else ""), rows, right=("measured", "cost")
    )
