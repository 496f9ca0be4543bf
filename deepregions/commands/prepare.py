"""``deepregions prepare``: a database into a face store."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from deepregions.commands.sources import DatabaseOptions, Source

if TYPE_CHECKING:
    from deepregions.data.databases import Adapter
    from deepregions.data.prepare import Report

_OPTIONS = DatabaseOptions()


def prepare(
    *,
    database: Source,
    out: Path,
    options: DatabaseOptions = _OPTIONS,
    allow_partial: bool = False,
    frames: int = 32,
    workers: int = 0,
    landmarks: str = "auto",
    device: str = "auto",
    margin: float = 0.5,
    tracks: Literal["main", "all"] = "main",
    max_size: int = 512,
    name: str | None = None,
) -> int:
    """Turns a database of photographs and videos into a face store, for training.

    Samples frames evenly in time, finds and landmarks faces, and writes them in shards. Nobody is
    in two splits. A run that was stopped goes on where it was when it is started again with the
    same options. Ends with a table of what was kept, what was not, and why.

    Args:
        database: Which (deepregions databases list has them all). folder is a folder with real/
            and fake/ (or train/, val/ and test/ above these); csv is a table of files;
            deepfakebench is a JSON file of its rearranged frames.
        out: The store's folder.
        options: Which part of it.
        allow_partial: Prepare what is there of a database of which files are missing.
        frames: How many frames of each video.
        workers: How many processes; 0 is this one.
        landmarks: Which landmark backend: auto, dlib, dlib-hog, face_alignment, or
            openface:FOLDER for the CSV files of OpenFace.
        device: auto, cpu, cuda or cuda:N, for the landmark backend.
        margin: How much of a face's surroundings to keep on each side, as a share of its size.
        tracks: Whom to keep in a video with several people, of whom it is not known who was
            manipulated: the main person, or all.
        max_size: Make a stored face smaller if it has a longer side than this, in pixels.
        name: folder, csv and deepfakebench: what to call the database in bundles.
    """
    from deepregions.commands import checks
    from deepregions.data.prepare import prepare as prepare_store

    source = options.open(database, name)
    _look_at(source, allow_partial=allow_partial)
    with checks.counted("preparing") as progress:
        report = prepare_store(
            source,
            out,
            detector=landmarks,
            device=device,
            frames_per_video=frames,
            margin=margin,
            tracks=tracks,
            max_size=max_size,
            workers=workers,
            progress=progress,
        )
    _print(report, out)
    return 0


def _look_at(source: Adapter, *, allow_partial: bool) -> None:
    """Says what is wrong with a database before hours of work.

    Raises:
        UsageError: Some of it is missing, and that was not allowed.
    """
    from deepregions.data.databases.checking import check
    from deepregions.errors import UsageError, printable

    findings = check(source)
    if findings.partial and not allow_partial:
        raise UsageError(
            f"some of {source.facts.title} is missing in {source.root}: "
            + printable("; ".join(findings.problems)),
            "get the rest, or prepare what is there with --allow-partial",
        )
    for line in (*findings.problems, *findings.notes):
        sys.stderr.write(f"deepregions: {printable(line)}\n")


def _print(report: Report, out: Path) -> None:
    """Prints what was kept and what was not; what failed goes to standard error as well."""
    from rich import box
    from rich.table import Table

    from deepregions.commands import checks
    from deepregions.data.store import SPLITS
    from deepregions.errors import printable

    table = Table(box=box.SIMPLE)
    for title in ("split", "class", "files", "with a face", "frames", "faces", "not kept"):
        table.add_column(title, justify="left" if title in {"split", "class"} else "right")
    for group in sorted(report.groups, key=lambda group: (SPLITS.index(group.split), group.label)):
        dropped = ", ".join(f"{number} {reason}" for reason, number in group.dropped.items())
        label = "fake" if group.label else "genuine"
        numbers = (group.clips, group.clips_kept, group.frames, group.faces)
        table.add_row(group.split, label, *map(str, numbers), dropped or "-")
    console = checks.output()
    console.print(table)
    for reason, number in report.left_out.items():
        console.print(f"{number} files left out: {reason}", highlight=False)
    for key, reason in report.failures:
        sys.stderr.write(f"deepregions: {printable(key)}: {reason}\n")
    if report.several:
        kept = "everybody was" if report.tracks == "all" else "the main person was"
        console.print(
            f"{report.several} files show several people, of whom it is not known who was "
            f"manipulated: {kept} kept (--tracks {report.tracks})",
            highlight=False,
        )
    console.print(f"{report.faces} faces by {report.landmarks}", highlight=False)
    sys.stdout.write(f"store: {printable(str(out))}\n")
