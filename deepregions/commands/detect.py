"""``deepregions detect``: scores for photographs and videos."""

from __future__ import annotations

from pathlib import Path

NOTHING_SCORED = 5


def detect(
    inputs: list[Path],
    *,
    bundle: list[Path],
    out: Path | None = None,
    json: bool = False,
    segmented: bool = False,
    region: str | None = None,
    frames: int = 32,
    landmarks: str = "auto",
    device: str = "auto",
    batch_size: int = 16,
) -> int:
    """Scores photographs and videos from 0 (genuine) to 1 (fake).

    Each bundle brings networks; together they are a matrix of detectors and regions, fused by
    the mean of their log-odds. An input without a face that can be judged gets no score, and a
    line on standard error says why. Exits with 0 when at least one input was scored, with 5 when
    none was.

    Args:
        inputs: Photographs, videos, or folders of them.
        bundle: Bundle folders, as `deepregions fit` writes them.
        out: Also write a picture of each input's verdict, and results.jsonl, to this folder.
        json: Print one JSON object per input, one per line, instead of tables.
        segmented: The inputs already are region canvases (black outside the region); needs
            --region.
        region: With --segmented, the region they show: entire, eyes, nose, mouth or rest.
        frames: How many frames of each video to look at, evenly in time.
        landmarks: Which landmark backend: auto, dlib, dlib-hog or face_alignment.
        device: auto, cpu, cuda or cuda:N.
        batch_size: How many faces are scored at once.
    """
    from deepregions.analysis.setup import make_analyser
    from deepregions.commands import checks
    from deepregions.commands.verdicts import Verdicts
    from deepregions.errors import UsageError
    from deepregions.media import find_media

    checks.positive(frames=frames, batch_size=batch_size)
    if segmented != (region is not None):
        raise UsageError(
            "--segmented and --region go together", "such as --segmented --region eyes"
        )
    shown = None if region is None else checks.region_named(region)
    files = find_media(inputs)
    analyser, facts = make_analyser(
        bundle,
        region=shown,
        landmarks=landmarks,
        device=device,
        frames_per_video=frames,
        batch_size=batch_size,
    )
    verdicts = Verdicts(facts, folder=out, as_json=json)
    scored = 0
    for path in checks.progress(files, "scoring"):
        analysis = analyser.analyse(path) if shown is None else analyser.analyse_canvas(path, shown)
        verdicts.show(analysis)
        scored += analysis.result.log_odds is not None
    verdicts.close()
    return 0 if scored else NOTHING_SCORED
