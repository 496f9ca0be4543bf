"""``deepregions detect``: scores for photographs and videos."""

from __future__ import annotations

from pathlib import Path

NOTHING_SCORED = 5


def detect(
    inputs: list[Path],
    *,
    bundle: list[Path] | None = None,
    models: Path | None = None,
    detector: str | None = None,
    region: str | None = None,
    database: str | None = None,
    out: Path | None = None,
    show: bool = False,
    json: bool = False,
    segmented: bool = False,
    frames: int = 32,
    landmarks: str = "auto",
    device: str = "auto",
    batch_size: int = 16,
) -> int:
    """Scores photographs and videos from 0 (genuine) to 1 (fake).

    Each bundle brings networks; together they are a matrix of detectors and regions, fused by
    the mean of their log-odds. --detector, --region and --database choose among them, in the
    spelling of the paper's program too (DSP-FWA, CelebDF, FaceForensics, --ddbb). An input
    without a face that can be judged gets no score, and a line on standard error says why. Exits
    with 0 when at least one input was scored, with 5 when none was.

    Args:
        inputs: Photographs, videos, or folders of them.
        bundle: Bundle folders, as `deepregions fit` and `deepregions import` write them, or
            hf://owner/name.
        models: A folder of bundles, instead of --bundle; by default $DEEPREGIONS_MODELS, or
            models or bundles where you are.
        detector: Only networks of this detector: xception, capsule or dsp-fwa.
        region: Only networks for this region: entire, eyes, nose, mouth or rest.
        database: Only networks trained on this database, such as uadfv, ffpp, celebdf or dfdc.
        out: Also write a picture of each input's verdict, and results.jsonl, to this folder.
        show: Also open each input's picture on your screen.
        json: Print one JSON object per input, one per line, instead of tables.
        segmented: The inputs already are region canvases (black outside the region); needs
            --region.
        frames: How many frames of each video to look at, evenly in time.
        landmarks: Which landmark backend: auto, dlib, dlib-hog, face_alignment, or
            openface:FOLDER for the CSV files of OpenFace.
        device: auto, cpu, cuda or cuda:N.
        batch_size: How many faces are scored at once.
    """
    from deepregions.analysis.setup import make_analyser
    from deepregions.commands import checks
    from deepregions.commands.verdicts import Verdicts
    from deepregions.errors import UsageError
    from deepregions.media import find_media
    from deepregions.weights.selection import Choice, choose_members

    checks.positive(frames=frames, batch_size=batch_size)
    choice = Choice.named(detector=detector, region=region, database=database)
    canvas = choice.region if segmented else None
    if segmented and canvas is None:
        raise UsageError("--segmented needs to know the region", "such as --region eyes")
    if bundle and models:
        raise UsageError("--bundle and --models do not go together", "give one of them")
    files = find_media(inputs)
    analyser, facts = make_analyser(
        choose_members(choice, bundle, models),
        landmarks=None if segmented else landmarks,
        device=device,
        frames_per_video=frames,
        batch_size=batch_size,
    )
    verdicts = Verdicts(facts, folder=out, as_json=json, on_screen=show)
    scored = 0
    for path in checks.progress(files, "scoring"):
        analysis = (
            analyser.analyse(path) if canvas is None else analyser.analyse_canvas(path, canvas)
        )
        verdicts.show(analysis)
        scored += analysis.result.log_odds is not None
    verdicts.close()
    return 0 if scored else NOTHING_SCORED
