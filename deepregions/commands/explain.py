"""``deepregions explain``: why photographs and videos have their scores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from deepregions.commands.options import NetworkOptions
from deepregions.errors import UsageError
from deepregions.faces.thresholds import Gates

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deepregions.pipeline.explain.compute import FaceExplanation
    from deepregions.pipeline.results import InputResult

NOTHING_EXPLAINED = 5

_NETWORKS, _GATES = NetworkOptions(), Gates()


def explain(
    inputs: list[Path],
    *,
    out: Path,
    networks: NetworkOptions = _NETWORKS,
    overwrite: bool = False,
    json: bool = False,
    segmented: bool = False,
    towards: Literal["fake", "genuine"] = "fake",
    frames: int = 32,
    gates: Gates = _GATES,
    landmarks: str = "auto",
    device: str = "auto",
    batch_size: int = 16,
) -> int:
    """Shows where the networks looked, and how much each of them adds to the score.

    For each person, the face with the highest score is explained. Grad-CAM shows where a network
    looked, and the share of the heat that falls on its region; exact Shapley values show how much
    each network adds to the fused log-odds. Writes to OUT/INPUT/: a page, explain.json, and two
    pictures per person. Exits with 5 if nothing could be explained.

    Args:
        inputs: Photographs, videos, or folders of them.
        out: The folder to write to.
        networks: Which networks are explained.
        overwrite: Replace explanations of the same inputs by an earlier run.
        json: Print one JSON object per input and line instead of tables.
        segmented: The inputs are already cropped to one region (black elsewhere); needs --region.
        towards: Show what speaks for fake, or what speaks for genuine.
        frames: Number of frames to look at in each video, evenly spaced.
        gates: When a face is good enough to be judged.
        landmarks: Landmark backend: auto, dlib, dlib-hog, face_alignment, or openface:PATH for
            CSV files of OpenFace 2.
        device: auto, cpu, cuda or cuda:N.
        batch_size: Number of faces processed at once.
    """
    from deepregions.media import MediaReader, Sampling, find_media

    files = find_media(inputs)

    from deepregions.commands import checks
    from deepregions.commands.verdicts import say
    from deepregions.files import Names
    from deepregions.pipeline.build import build_analyser
    from deepregions.pipeline.explain.compute import explain_faces
    from deepregions.pipeline.explain.shapley import check_count
    from deepregions.pipeline.report.explanation import write_explanation

    checks.positive(frames=frames, batch_size=batch_size)
    canvas = networks.canvas(segmented)
    _check_folder(out, overwrite=overwrite)
    members = networks.load()
    check_count(len(members))
    analyser = build_analyser(
        members,
        landmarks=None if segmented else landmarks,
        device=device,
        sampling=Sampling("count", count=frames),
        gates=gates,
        batch_size=batch_size,
    )
    system = analyser.scorer.system
    names, explained = Names(), 0
    with MediaReader() as reader:
        found = (
            analyser.analyse(files, reader)
            if canvas is None
            else analyser.analyse_canvases(files, canvas, reader)
        )
        for result in checks.progress(found, "explaining", len(files)):
            faces = tuple(explain_faces(result, system, towards=towards, batch_size=batch_size))
            folder = out / names.unused(Path(result.input).stem)
            write_explanation(result, faces, analyser.provenance, folder)
            if json:
                _print_json(result, faces, analyser.provenance)
            else:
                _print_table(result, faces, folder)
            say(result)
            explained += bool(faces)
    return 0 if explained else NOTHING_EXPLAINED


def _check_folder(out: Path, *, overwrite: bool) -> None:
    from deepregions.pipeline.report.explanation import FACTS

    if not overwrite and any(out.glob(f"*/{FACTS}")):
        raise UsageError(
            f"{out} has explanations of an earlier run",
            "--overwrite replaces those of the same inputs; or name another folder",
        )


def _print_json(
    result: InputResult, faces: Sequence[FaceExplanation], facts: dict[str, object]
) -> None:
    import json
    import sys

    from deepregions.pipeline.explain.compute import to_json

    sys.stdout.write(f"{json.dumps(to_json(result, faces, facts), allow_nan=False)}\n")
    sys.stdout.flush()


def _print_table(result: InputResult, faces: Sequence[FaceExplanation], folder: Path) -> None:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from deepregions.commands import checks
    from deepregions.errors import printable
    from deepregions.pipeline.report.explanation import inside_words
    from deepregions.pipeline.report.words import who
    from deepregions.pipeline.results import probability

    console = checks.output()
    head = f"[bold]{escape(printable(result.input))}[/]"
    console.print(f"{head}  {escape(printable(str(folder)))}", highlight=False)
    for face in faces:
        table = Table(box=box.SIMPLE, title=who(face.face.track), title_justify="left")
        table.add_column("network")
        for name in ("score", "adds", "heat"):
            table.add_column(name, justify="right")
        for cell in face.cells:
            score = probability(cell.log_odds)
            if score is None or cell.share is None:
                numbers = ("no answer", "", "")
            else:
                inside = inside_words(cell)
                numbers = (f"{score:.3f}", f"{cell.share:+.2f}", inside)
            table.add_row(escape(f"{cell.detector} {cell.region}"), *numbers)
        table.add_section()
        fused = probability(face.face.log_odds) or 0.0
        table.add_row("fused", f"{fused:.3f}", f"{face.total:+.2f}", "")
        console.print(table)
