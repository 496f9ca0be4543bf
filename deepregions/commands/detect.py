"""``deepregions detect``: scores for photographs and videos."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from deepregions.commands.options import NetworkOptions, PoolOptions
from deepregions.errors import UsageError
from deepregions.faces.thresholds import Gates

if TYPE_CHECKING:
    from deepregions.media import Sampling
    from deepregions.pipeline.face_scorer import FaceScorer

COVERED_TOO_FEW = 3
NOTHING_SCORED = 5

_NETWORKS, _GATES, _POOL = NetworkOptions(), Gates(), PoolOptions()


def detect(
    inputs: list[Path],
    *,
    networks: NetworkOptions = _NETWORKS,
    out: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    annotate: bool = False,
    show: bool = False,
    json: bool = False,
    csv: bool = False,
    segmented: bool = False,
    frames: int = 32,
    rate: float | None = None,
    adaptive: bool = False,
    pool: PoolOptions = _POOL,
    gates: Gates = _GATES,
    min_coverage: float = 0.0,
    landmarks: str = "auto",
    device: str = "auto",
    batch_size: int = 16,
    runtime: Literal["torch", "onnxruntime", "openvino", "auto"] = "torch",
    precision: Literal["fp32", "bf16"] = "fp32",
) -> int:
    """Scores photographs and videos from 0 (genuine) to 1 (fake).

    Each bundle brings networks; together they are a matrix of detectors and regions, fused by
    the mean of their log-odds, or by what the bundle was trained to if exactly its networks are
    used; where it was calibrated too, a likelihood ratio says what the score is worth.
    --detector, --region and --trained-on choose among them, in the spelling of the paper's program
    too (DSP-FWA, CelebDF, FaceForensics, --ddbb). People are followed through a video, and each
    gets a score. What cannot be judged gets none, and a line on standard error says why. Exits
    with 0 when the work was done, whatever the verdict; with 5 when no input could be scored,
    with 3 when fewer could than --min-coverage asks for.

    Args:
        inputs: Photographs, videos, or folders of them.
        networks: Which networks score.
        out: Also write a page and a picture for each input, results.jsonl and results.csv to this
            folder; each input's as soon as it is finished.
        resume: Go on with --out where an earlier run with the same options was stopped.
        overwrite: Begin --out anew.
        annotate: Also write a copy of each video with boxes and scores to --out.
        show: Also open each input's picture on your screen.
        json: Print one JSON object per input, one per line, instead of tables; `deepregions
            schema detect` describes it.
        csv: Print a line of comma-separated values per person, instead of tables.
        segmented: The inputs already are region canvases (black outside the region); needs
            --region.
        frames: How many frames of each video to look at, evenly in time.
        rate: Look at this many frames a second of each video instead.
        adaptive: Look at half of --frames evenly, at the others where scores disagree.
        pool: How many scores become one.
        gates: What a face must be to be judged.
        min_coverage: The least share of inputs, from 0 to 1, that must get a score.
        landmarks: Which landmark backend: auto, dlib, dlib-hog, face_alignment, or openface:PATH
            of OpenFace 2's CSV files.
        device: auto, cpu, cuda or cuda:N.
        batch_size: How many faces are scored at once.
        runtime: What the networks are run by: torch; onnxruntime or openvino, on the CPU (the
            first time, the networks are exported, which takes minutes); auto: the fastest here.
        precision: What the networks compute in. bf16: openvino only, on CPUs that have it; scores
            change a little, and deepregions export --precision bf16 --store measures what that
            does to verdicts.
    """
    from deepregions.media import MediaReader, find_media

    files = find_media(inputs)

    from deepregions.commands import checks
    from deepregions.commands.verdicts import Output, Verdicts
    from deepregions.pipeline.build import build_analyser

    checks.positive(frames=frames, batch_size=batch_size)
    output = Output(json, csv, show, out, resume, overwrite, annotate)
    if not 0 <= min_coverage <= 1:
        raise UsageError(f"--min-coverage is {min_coverage}", "a share, from 0 to 1")
    canvas = networks.canvas(segmented)
    sampling = _sampling(frames, rate, adaptive)
    analyser, facts = build_analyser(
        networks.load(),
        landmarks=None if segmented else landmarks,
        device=device,
        sampling=sampling,
        rules=pool.rules(),
        gates=gates,
        batch_size=batch_size,
        pictures=out is not None or show,
    )
    facts["precision"] = precision
    if runtime != "torch" or precision != "fp32":
        _run_by(runtime, precision, analyser.scorer, facts["versions"])
    verdicts = Verdicts(facts, output, sampling)
    with MediaReader() as reader, verdicts:
        left = verdicts.unfinished(files)
        found = (
            analyser.analyse(left, reader)
            if canvas is None
            else analyser.analyse_canvases(left, canvas, reader)
        )
        for analysis in checks.progress(found, "scoring", len(left)):
            verdicts.show(analysis)
    if not verdicts.scored:
        return NOTHING_SCORED
    return COVERED_TOO_FEW if verdicts.scored < min_coverage * len(files) else 0


def _run_by(
    name: Literal["torch", "onnxruntime", "openvino", "auto"],
    precision: Literal["fp32", "bf16"],
    scorer: FaceScorer,
    versions: dict[str, str],
) -> None:
    """Lets another runtime score, and says so among the libraries' versions."""
    from deepregions.deploy.runtime_system import RuntimeSystem, fastest, run_by
    from deepregions.deploy.runtimes import check_precision

    check_precision(name, precision)
    if precision == "bf16":
        sys.stderr.write(
            "deepregions: bfloat16 changes scores a little (deepregions export --precision bf16 "
            "--crops-in --store DIR measures what that does to verdicts)\n"
        )
    system = scorer.system.cpu()
    if name == "auto":
        runtime, rates = fastest(system)
        tried = ", ".join(f"{each} {rate:.1f}" for each, rate in rates.items())
        sys.stderr.write(f"deepregions: runtime {runtime.name} (faces/s: {tried})\n")
    else:
        runtime = run_by(name, system, precision=precision)
    scorer.system = RuntimeSystem(system, runtime).to(scorer.device)
    versions[runtime.name] = runtime.version


def _sampling(frames: int, rate: float | None, adaptive: bool) -> Sampling:
    from deepregions.media import Sampling

    if rate is not None and adaptive:
        raise UsageError("--rate and --adaptive do not go together", "give one of them")
    if rate is not None:
        return Sampling("rate", rate=rate)
    return Sampling("adaptive" if adaptive else "count", count=frames)
