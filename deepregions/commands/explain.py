"""``deepregions explain``: why photographs and videos have their scores."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from deepregions.commands import checks
from deepregions.commands.options import NetworkOptions
from deepregions.errors import UsageError
from deepregions.faces.thresholds import Gates

if TYPE_CHECKING:
    from deepregions.pipeline.explain.compute import FaceExplanation

NOTHING_EXPLAINED = 5


def explain(
    inputs: list[Path],
    *,
    out: Path,
    networks: NetworkOptions,
    overwrite: bool = False,
    json: bool = False,
    segmented: bool = False,
    towards: Literal["fake", "genuine"] = "fake",
    frames: int = 32,
    gates: Gates,
    landmarks: str = "auto",
    device: str = "auto",
    batch_size: int = 16,
) -> int:
    """Shows where the networks looked, and how much each of them adds to the score.

    For each person, the face with the highest score is explained. Grad-CAM shows where a network
    looked, and the share of the heat that falls on its region; exact Shapley values show how much
    each network adds to the fused log-odds. Writes to OUT/INPUT/: a page, explain.json, and two
    pictures per person; OUT/index.html lists the inputs. Exits with 5 if nothing could be
    explained.

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

    from deepregions.commands.verdicts import print_answer, say
    from deepregions.files import Names
    from deepregions.pipeline.build import build_analyser
    from deepregions.pipeline.explain.compute import explain_faces, to_json
    from deepregions.pipeline.explain.shapley import check_count
    from deepregions.pipeline.face_scorer import system_of
    from deepregions.pipeline.report.explanation import FACTS, PAGE, write_explanation
    from deepregions.pipeline.report.index import index_row, write_index
    from deepregions.pipeline.results_folder import INDEX

    checks.positive(frames=frames, batch_size=batch_size)
    canvas = networks.canvas(segmented)
    if not overwrite and any(out.glob(f"*/{FACTS}")):
        raise UsageError(
            f"{out} has explanations of an earlier run",
            "--overwrite replaces those of the same inputs; or name another folder",
        )
    members = networks.load()
    check_count(len(members))
    analyser = build_analyser(
        members,
        landmarks=None if segmented else landmarks,
        device=device,
        sampling=Sampling("count", count=frames),
        gates=gates,
        batch_size=batch_size,
        command=("deepregions", *sys.argv[1:]),
    )
    system = system_of(analyser.scorer)
    names, explained, rows = Names(), 0, []
    with MediaReader() as reader:
        found = (
            analyser.analyse(files, reader)
            if canvas is None
            else analyser.analyse_canvases(files, canvas, reader)
        )
        for result in checks.progress(found, "explaining", len(files)):
            faces = tuple(explain_faces(result, system, towards=towards, batch_size=batch_size))
            folder = out / names.unused(Path(result.input).stem)
            write_explanation(result, faces, folder)
            rows.append(index_row(result, f"{folder.name}/{PAGE}"))
            if json:
                told = to_json(result, faces)
                checks.print_json(told, indent=None)
            else:
                print_answer(result)
                checks.print_lines(f"  {folder}")
                for face in faces:
                    _print_table(face, timed=result.kind == "video")
            say(result)
            explained += bool(faces)
    write_index(rows, out / INDEX)
    return 0 if explained else NOTHING_EXPLAINED


def _print_table(face: FaceExplanation, *, timed: bool) -> None:
    from deepregions.pipeline.words import clock, score, who

    rows = []
    for cell in face.cells:
        numbers = [score(cell.log_odds), "", "", f"{100 * cell.area:.0f} %"]
        if cell.log_odds is not None and cell.share is not None:
            heat = "no heat" if cell.inside is None else f"{100 * cell.inside:.0f} %"
            numbers[1:3] = f"{cell.share:+.2f}", heat
        rows.append((f"{cell.detector} {cell.region}", *numbers))
    fused = ("fused", score(face.face.log_odds), f"{face.total:+.2f}", "", "")
    heads = ("network", "score", "adds", "heat on the region", "the region's area")
    when = f" at {clock(face.face.time)}" if timed else ""
    title = f"{who(face.face.track)}: the highest face{when}"
    checks.print_table(heads, [*rows, (), fused], right=heads[1:], title=title)
