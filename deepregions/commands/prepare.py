"""``deepregions prepare``: a database into a face store."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from deepregions.data.databases import Database
    from deepregions.data.prepare import Report


def prepare(
    *,
    database: Literal["ffpp", "folder", "toy"],
    out: Path,
    root: Path | None = None,
    frames: int = 32,
    workers: int = 0,
    landmarks: str = "auto",
    device: str = "auto",
    margin: float = 0.5,
    tracks: Literal["main", "all"] = "main",
    max_size: int = 512,
    compression: Literal["raw", "c23", "c40"] = "c23",
    methods: list[str] | None = None,
    identity: str | None = None,
    name: str = "folder",
    count: int = 600,
    seed: int = 0,
) -> int:
    """Turns a database of photographs and videos into a face store, for training.

    Samples frames evenly in time, finds and landmarks faces, and writes them in shards. A run
    that was stopped goes on where it was when it is started again with the same options. Ends
    with a table of what was kept, what was not, and why.

    Args:
        database: ffpp is FaceForensics++ as published; folder is a folder with real/ and fake/
            (or train/, val/ and test/ above these); toy is drawn faces, made on the spot.
        out: The store's folder.
        root: Where the database is; not for toy.
        frames: How many frames of each video.
        workers: How many processes; 0 is this one.
        landmarks: Which landmark backend: auto, dlib, dlib-hog, face_alignment, or
            openface:FOLDER for the CSV files of OpenFace.
        device: auto, cpu, cuda or cuda:N, for the landmark backend.
        margin: How much of a face's surroundings to keep on each side, as a share of its size.
        tracks: Whom to keep in a video with several people: the main person, or all.
        max_size: Make a stored face smaller if it has a longer side than this, in pixels.
        compression: ffpp: which videos.
        methods: ffpp: which manipulations; all that are there if left out.
        identity: folder: regular expression for who is in a file, searched in its path below
            real/ or fake/; its groups are people. By default the first part of the file's name.
        name: folder: what to call the database in bundles.
        count: toy: how many faces.
        seed: folder and toy: another seed makes other splits, or other faces.
    """
    from deepregions.commands import checks
    from deepregions.data.prepare import prepare as prepare_store

    if database == "toy":
        return _draw(out, count, seed)
    source = _database(
        database,
        _existing(root, database),
        compression=compression,
        methods=methods,
        identity=identity,
        name=name,
        seed=seed,
    )
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


def _draw(out: Path, count: int, seed: int) -> int:
    from deepregions.commands import checks
    from deepregions.data.toy import write_toy_store

    checks.positive(count=count)
    write_toy_store(out, count, seed)
    sys.stdout.write(f"store: {out}\n")
    return 0


def _existing(root: Path | None, database: str) -> Path:
    from deepregions.errors import UsageError

    if root is None:
        raise UsageError(f"--database {database} needs --root", "the folder that holds it")
    if not root.is_dir():
        raise UsageError(f"{root} is not a folder", f"--root is the folder that holds {database}")
    return root


def _database(
    kind: Literal["ffpp", "folder"],
    root: Path,
    *,
    compression: str,
    methods: list[str] | None,
    identity: str | None,
    name: str,
    seed: int,
) -> Database:
    from deepregions.data.databases import FaceForensics, Folder

    if kind == "ffpp":
        return FaceForensics(root, compression, methods)
    return Folder(root, name, identity, seed)


def _print(report: Report, out: Path) -> None:
    """Prints what was kept and what was not; what failed goes to standard error as well."""
    from rich import box
    from rich.table import Table

    from deepregions.commands import checks
    from deepregions.data.store import SPLITS

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
        sys.stderr.write(f"deepregions: {key}: {reason}\n")
    console.print(f"{report.faces} faces by {report.landmarks}", highlight=False)
    sys.stdout.write(f"store: {out}\n")
