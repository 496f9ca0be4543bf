"""``deepregions prepare``: a database into a face store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from deepregions.commands import checks
from deepregions.commands.sources import DatabaseOptions, Source, existing
from deepregions.errors import UsageError

if TYPE_CHECKING:
    from deepregions.data.prepare import Report


def prepare(
    *,
    database: Source,
    out: Path,
    options: DatabaseOptions,
    allow_partial: bool = False,
    frames: int = 32,
    workers: int = 0,
    landmarks: str = "auto",
    device: str = "auto",
    margin: float = 0.5,
    tracks: Literal["main", "all"] = "main",
    others: Literal["dropped", "genuine"] = "dropped",
    max_size: int = 512,
    name: str | None = None,
) -> None:
    """Turns a database of photographs and videos into a face store, for training.

    Samples frames evenly in time, finds faces and landmarks, and writes them in shards. Nobody is
    in two splits. A run that was stopped continues when it is started again with the same options.
    Ends with a table of what was kept, what was not, and why.

    Args:
        database: Which database (`deepregions databases list` shows them). folder is a folder with
            real/ and fake/ (or train/, val/ and test/ above these); csv is a table of files;
            deepfakebench is a JSON file of its rearranged frames.
        out: The store's folder.
        options: Which part of it.
        allow_partial: Prepare what is there of a database that is incomplete.
        frames: Number of frames to take from each video.
        workers: Number of processes; 0 uses only this one.
        landmarks: Landmark backend: auto, dlib, dlib-hog, face_alignment, or openface:FOLDER for
            CSV files of OpenFace 2.
        device: auto, cpu, cuda or cuda:N; for the landmark backend.
        margin: How much of a face's surroundings to keep on each side, as a share of its size.
        tracks: Whom to keep in a video with several people if it is not known who was
            manipulated: the main person, or all.
        others: In a fake video with several people whose mask says who was manipulated (ffpp and
            dfd, with their masks), drop the others, or keep them as genuine.
        max_size: Scale a stored face down if its longer side is longer than this, in pixels.
        name: The database's name in bundles, for folder, csv and deepfakebench.
    """
    existing(database, options.root)

    from deepregions.data.databases.checking import check
    from deepregions.data.prepare import prepare as prepare_store

    source = options.open(database, name)
    findings = check(source)  # before hours of work
    if findings.partial and not allow_partial:
        raise UsageError(
            f"some of {source.facts.title} is missing in {source.root}: "
            + "; ".join(findings.problems),
            "get the rest, or prepare what is there with --allow-partial",
        )
    for line in (*findings.problems, *findings.notes):
        checks.warn(line)
    with checks.counted("preparing") as progress:
        report = prepare_store(
            source,
            out,
            detector=landmarks,
            device=device,
            frames_per_video=frames,
            margin=margin,
            tracks=tracks,
            others=others,
            max_size=max_size,
            workers=workers,
            progress=progress,
        )
    _print(report)
    checks.print_lines(f"store: {out}")


def _print(report: Report) -> None:
    from deepregions.data.store import SPLITS

    rows = []
    for group in sorted(report.groups, key=lambda group: (SPLITS.index(group.split), group.label)):
        dropped = ", ".join(f"{reason}: {number}" for reason, number in group.dropped.items())
        label = "fake" if group.label else "genuine"
        numbers = (group.clips, group.clips_kept, group.frames, group.faces)
        rows.append((group.split, label, *map(str, numbers), dropped or "-"))
    heads = ("split", "class", "files", "with a face", "frames", "faces", "not kept")
    checks.print_table(heads, rows, right=heads[2:])
    for reason, number in report.left_out.items():
        checks.print_lines(f"{number} files left out: {reason}")
    for key, reason in report.failures:
        checks.warn(f"{key}: {reason}")
    if report.several:
        kept = "everybody was" if report.tracks == "all" else "the main person was"
        checks.print_lines(
            f"{report.several} files show several people, of whom it is not known who was "
            f"manipulated: {kept} kept (--tracks {report.tracks})"
        )
    if report.masked:
        rest = f"{report.others} faces of others were kept as genuine"
        checks.print_lines(
            f"{report.masked} files show several people, and a mask says who was manipulated: "
            f"{rest if report.others else 'the others were dropped'}"
        )
    checks.print_lines(f"{report.faces} faces by {report.landmarks}")
