"""``deepregions detect``: scores for photographs and videos."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepregions.commands import checks
from deepregions.commands.options import NetworkOptions, SamplingOptions, ScoringOptions
from deepregions.errors import UsageError
from deepregions.faces.thresholds import Gates
from deepregions.fusion.pooling import Pooling

if TYPE_CHECKING:
    from deepregions.pipeline.results import Result
    from deepregions.weights.bundle import Bundle

COVERED_TOO_FEW = 3
NOTHING_SCORED = 5


def detect(
    inputs: list[Path],
    *,
    networks: NetworkOptions,
    out: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    annotate: bool = False,
    explain: bool = False,
    pdf: bool = False,
    show: bool = False,
    json: bool = False,
    csv: bool = False,
    segmented: bool = False,
    sampling: SamplingOptions,
    pool: Pooling,
    gates: Gates,
    min_coverage: float = 0.0,
    scoring: ScoringOptions,
) -> int:
    """Says how strongly photographs and videos speak for or against a manipulated face.

    If the bundle was calibrated, a likelihood ratio says how strong the evidence is; otherwise no
    conclusion is possible. The score beside it goes from 0 (looks genuine) to 1 (looks fake). All
    networks are used together: without a trained fusion, the score is the mean of their log-odds.
    People are followed through a video, and each person gets a score. Files that cannot be judged
    get no score; a line on standard error says why. --detector, --region and --trained-on also
    accept the spelling of the paper's program (DSP-FWA, CelebDF, --ddbb).

    Exit codes: 0 the work was done, whatever the verdict; 1 a bundle, a model file or the output
    folder is not as it should be; 2 wrong usage; 3 fewer inputs were scored than --min-coverage
    asks for; 5 no input could be scored; 130 Ctrl-C; 141 nobody reads the output; 143 SIGTERM.

    Args:
        inputs: Photographs, videos, or folders of them.
        networks: Which networks score.
        out: Also write a page and a picture for each input, and results.jsonl and results.csv, to
            this folder. Each input's files appear as soon as it is finished.
        resume: Continue an earlier run to --out with the same options.
        overwrite: Replace the results of an earlier run to --out.
        annotate: Also write a copy of each video with boxes and scores to --out.
        explain: Show on each page where the networks looked and how much each adds to the score,
            as `deepregions explain` does.
        pdf: Also write each page to --out as PDF, two pages of A4; needs Chromium or Chrome.
        show: Also open each input's picture on the screen.
        json: Print one JSON object per input and line instead of tables; `deepregions schema
            detect` describes it.
        csv: Print comma-separated values, one line per person, instead of tables.
        segmented: The inputs are already cropped to one region (black elsewhere); needs --region.
        sampling: Which frames of videos are looked at.
        pool: How many scores become one.
        gates: When a face is good enough to be judged.
        min_coverage: The smallest share of inputs, from 0 to 1, that must get a score.
        scoring: How faces are found and scored.
    """
    from deepregions.media import MediaReader, find_media

    files = find_media(inputs)

    checks.positive(batch_size=scoring.batch_size)
    frames = sampling.sampling()
    checks.exclude("--out DIR writes both", json=json, csv=csv)
    checks.exclude("give one of them", resume=resume, overwrite=overwrite)
    needing = {"resume": resume, "overwrite": overwrite, "annotate": annotate}
    for name, given in (needing | {"explain": explain, "pdf": pdf}).items():
        if given and out is None:
            raise UsageError(f"--{name} needs a folder", "--out DIR")
    if explain and scoring.runtime not in (None, "torch"):
        said = f"--explain does not work with --runtime {scoring.runtime}"
        raise UsageError(said, "--runtime torch")
    if not 0 <= min_coverage <= 1:
        raise UsageError(f"--min-coverage is {min_coverage}", "a share, from 0 to 1")
    canvas = networks.canvas(segmented)
    with MediaReader() as reader:
        reader.start()  # while what scores is imported

        from deepregions.commands.verdicts import VerdictPrinter
        from deepregions.files import lock_folder

        browser = ""
        if pdf:
            from deepregions.pages.pdf import find_browser

            browser = find_browser()
        members: Bundle | Path
        if explain:
            from deepregions.pipeline.explain.shapley import check_count

            members = networks.load()
            check_count(len(members))
        else:
            members = networks.load_for(scoring)
        analyser = scoring.analyser(
            members,
            canvases=segmented,
            sampling=frames,
            rules=pool,
            gates=gates,
            pictures=out is not None or show,
        )

        def explained(result: Result) -> dict[str, Any]:
            from deepregions.pipeline.explain.compute import explain_faces
            from deepregions.pipeline.face_scorer import system_of
            from deepregions.pipeline.report.explanation import page_parts

            faces = explain_faces(result, system_of(analyser.scorer), batch_size=scoring.batch_size)
            return page_parts(list(faces))

        with lock_folder(out, "detect"):
            verdicts = VerdictPrinter(
                analyser.facts,
                frames,
                "json" if json else "csv" if csv else "tables",
                folder=out,
                mode="resume" if resume else "overwrite" if overwrite else "new",
                annotate=annotate,
                display=show,
                explain=explained if explain else None,
                browser=browser,
            )
            with closing(verdicts):
                left = verdicts.unfinished(files)
                found = (
                    analyser.analyse(left, reader)
                    if canvas is None
                    else analyser.analyse_canvases(left, canvas, reader)
                )
                for result in checks.progress(found, "scoring", len(left)):
                    verdicts.show(result)
    if not verdicts.scored:
        return NOTHING_SCORED
    return COVERED_TOO_FEW if verdicts.scored < min_coverage * len(files) else 0
