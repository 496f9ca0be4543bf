"""``deepregions archive``: manifests of any length, scored by many processes and machines."""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from deepregions.commands import checks
from deepregions.commands.options import (
    NetworkOptions,
    SamplingOptions,
    ScoringOptions,
    checked_path,
)
from deepregions.errors import UsageError
from deepregions.faces.thresholds import Gates
from deepregions.fusion.pooling import Pooling

if TYPE_CHECKING:
    from deepregions.pipeline.analyser import Analyser


def make_manifest(roots: list[str], *, out: Path, media_only: bool = False) -> None:
    """Lists the files of folders as a manifest: a Parquet file with their ids, paths and sizes.

    Ids rise in the order of the files. Hidden files are left out, and links to folders are not
    followed. A .csv or .parquet file among the arguments is a list with a column path, and perhaps
    id; a .txt file is a list of paths, one a line. Lists may hold addresses too.

    Args:
        roots: Folders, lists, and single files; elsewhere by their addresses, such as
            s3://BUCKET/FOLDER, gs://BUCKET/FOLDER or hf://datasets/OWNER/NAME (the extra remote).
        out: The manifest to write.
        media_only: Leave out files of folders that are neither photographs nor videos, by their
            name or else their content. Otherwise scoring says what a file is not.
    """
    from deepregions.archive.manifest import list_files, write_manifest
    from deepregions.archive.remote import is_remote

    places = [root if is_remote(root) else checked_path(root) for root in roots]
    files = list_files(places, media_only=media_only, warn=checks.warn)
    with checks.counted("listing", "files") as show:
        count, size = write_manifest(checks.every(files, show), out)
    checks.print_lines(f"{count:,} files, {size / 1e9:,.1f} GB: {out}")


def score_manifest(
    manifest: Path,
    *,
    out: Path,
    shard: str = "1/1",
    workers: int | None = None,
    ray: list[str] | bool | None = None,
    part_size: int | None = None,
    pages: Literal["none", "evidence"] = "none",
    reuse_copies: bool = True,
    networks: NetworkOptions,
    sampling: SamplingOptions,
    pool: Pooling,
    gates: Gates,
    scoring: ScoringOptions,
) -> None:
    """Scores the files of a manifest into a folder of Parquet files, as `deepregions detect` does.

    The same command goes on with what an earlier run has left; results are never made twice or
    lost. A file on which two workers end gets a row with status error. docs/archive.md describes
    the columns.

    Args:
        manifest: What `deepregions archive manifest` has written.
        out: The folder of results; that of an earlier run is gone on with.
        shard: Which part of the manifest to score, such as 3/8 for the third of eight: each task of
            a cluster's job takes its own, all into one folder.
        workers: Number of processes that score; by default 1, with --ray one for each GPU or else
            core of the cluster. One for each core is best where there is no GPU.
        ray: Score by actors of a Ray cluster, at this address; without one, by those of the cluster
            that is running here, or else of one that is started for this run. After the manifest.
        part_size: Number of files of a part; by default 256, in large archives up to 4096.
        pages: evidence writes a page for each file at or above the threshold that
            --max-false-alarms names.
        reuse_copies: Score files of the same content once; --no-reuse-copies scores each. Only
            files with as many bytes as another are compared.
        networks: Which networks score.
        sampling: Which frames of videos are looked at.
        pool: How many scores become one.
        gates: When a face is good enough to be judged.
        scoring: How faces are found and scored.
    """
    from deepregions.archive.driver import Driver
    from deepregions.archive.manifest import FileManifest
    from deepregions.archive.parts import ArchiveResults
    from deepregions.archive.scoring import ScorerFactory
    from deepregions.archive.workers import ScorerPool, WorkerPool

    given = {"workers": workers, "part_size": part_size, "batch_size": scoring.batch_size}
    checks.positive(**{name: value for name, value in given.items() if value is not None})
    if pages == "evidence" and scoring.max_false_alarms is None:
        raise UsageError(
            "--pages evidence needs a threshold", "--max-false-alarms names one, such as 0.01"
        )
    number, shards = _shard(shard)
    make_analyser = partial(
        _make_analyser,
        networks=networks,
        scoring=scoring,
        sampling=sampling.sampling(),
        rules=pool,
        gates=gates,
    )
    make = ScorerFactory(
        make_analyser,
        scoring.runtime,
        workers or 1,
        pages == "evidence",
        out.absolute() / "contents",
    )
    # Others may be made at first, and by default nodes of a cluster may differ.
    at_once = scoring.runtime == "torch" or (scoring.runtime is None and ray is None)
    settle = None if at_once else make.settled
    scorers: ScorerPool = WorkerPool(make, workers or 1, settle=settle)
    if ray is not None:
        from deepregions.archive.ray_networks import RayNetworks
        from deepregions.archive.ray_pool import RayPool

        address = ray[0] if isinstance(ray, list) and ray else ""
        apart = None if scoring.device == "cpu" else RayNetworks(make)
        scorers = RayPool(
            make, address, workers, gpus=apart is not None, networks=apart, settle=settle
        )
    with checks.counted("scoring", "files") as show:
        driver = Driver(
            FileManifest(manifest),
            ArchiveResults(out),
            scorers,
            shard=number,
            shards=shards,
            part_size=part_size,
            reuse_copies=reuse_copies,
            show=show,
        )
        driver.score()
    said = f"{driver.done:,} files scored, {driver.skipped:,} before: {out}"
    checks.print_lines(said)
    if driver.busy:
        checks.warn(f"{driver.busy:,} files are being scored by a run of other shards")


def _make_analyser(
    runtime: Any,
    *,
    networks: NetworkOptions,
    scoring: ScoringOptions,
    cpu: bool = False,
    **how: Any,
) -> Analyser:
    """Loads the networks, in the process that scores; with ``cpu``, leaves a GPU to others."""
    device = "cpu" if cpu else scoring.device
    scoring = replace(scoring, runtime=runtime, device=device)
    return scoring.analyser(networks.load_for(scoring), pictures=False, **how)


def _shard(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    number, shards = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= number <= shards:
        raise UsageError(f"--shard is {text!r}", "such as 1/8, the first of eight")
    return number, shards


def show_status(results: Path, *, json: bool = False) -> None:
    """Shows how far an archive is, what could not be judged, and why.

    Args:
        results: The folder of results.
        json: Print a JSON object instead of tables.
    """
    from deepregions.archive.parts import ArchiveResults
    from deepregions.archive.summary import look_up, results_of, summarise

    summary = summarise(results_of(results), whole=False)
    now = look_up(ArchiveResults(results), summary.files)
    reasons = summary.reasons.most_common(20)
    if json:
        told = asdict(now) | {"left": now.left, "statuses": dict(summary.statuses)}
        told["reasons"] = [{"status": s, "reason": r, "files": n} for (s, r), n in reasons]
        checks.print_json(told)
        return
    there = now.finished + now.begun
    of = "" if now.files is None else f" of {now.files:,} ({100 * there / (now.files or 1):.1f} %)"
    checks.print_lines(f"{there:,}{of} files have a result, {now.begun:,} of them in begun parts")
    if now.runs:
        left = "" if now.left is None else f"; about {_duration(now.left)} left"
        runs = "one run" if now.runs == 1 else f"{now.runs} runs"
        checks.print_lines(f"{now.rate:.1f} files a second by {runs}{left}")
    elif there != now.files:
        checks.print_lines("no run is at work: deepregions archive score goes on")
    if summary.seconds:
        checks.print_lines(f"{summary.files / summary.seconds:.1f} files a second and worker")
    counts = [(status, f"{count:,}") for status, count in summary.statuses.most_common()]
    checks.print_table(("status", "files"), counts, right=("files",))
    if reasons:
        rows = [(status, reason, f"{count:,}") for (status, reason), count in reasons]
        checks.print_table(("status", "reason", "files"), rows, right=("files",))


def merge_results(results: Path, *, out: Path) -> None:
    """Writes an archive's results as one Parquet file, in the order of ids.

    Args:
        results: The folder of results.
        out: The file to write.
    """
    from deepregions.archive.parts import ArchiveResults
    from deepregions.archive.summary import look_up, merge, results_of

    count = merge(results_of(results), out)
    checks.print_lines(f"{count:,} files: {out}")
    now = look_up(ArchiveResults(results), count)
    if now.files is not None and now.files != count:
        checks.warn(f"{now.files - count:,} files are in no finished part yet")


def write_report(results: Path, *, out: Path | None = None) -> None:
    """Writes a page of what an archive's results say: counts, histograms, the strongest evidence.

    Args:
        results: The folder of results, or the file that `deepregions archive merge` has written.
        out: The page to write; by default report.html in the folder of results.
    """
    from deepregions.archive.summary import results_of, summarise, write_report

    if out is None and results.is_file():
        raise UsageError("a merged file needs a page to write", "--out report.html")
    page = out or results / "report.html"
    write_report(summarise(results_of(results)), results, page)
    checks.print_lines(str(page))


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"
