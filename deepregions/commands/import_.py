"""``deepregions import``: other people's checkpoints as bundles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepregions.commands import checks
from deepregions.commands.options import check_there
from deepregions.errors import DeepregionsError, UsageError, printable

if TYPE_CHECKING:
    from deepregions.weights.convert.importing import Importer


def import_(
    source: list[Path],
    *,
    out: Path,
    vgg: Path | None = None,
    fake_index: int | None = None,
    region: str | None = None,
    database: str | None = None,
    project: str | None = None,
    json: bool = False,
) -> int:
    """Imports other people's checkpoints as bundles that give the scores of the original programs.

    Takes the networks of the paper (BiDAlab/DeepFakes_FacialRegions: Capsule, DSP-FWA and
    Xception, also the whole models folder), Capsule-Forensics-v2, DSP-FWA, FaceForensics++ and
    DeepfakeBench, under the names that they were published with. Cadene's ImageNet Xception
    becomes a file for --model.init_args.backbone_file. Nothing in a file is executed. A file that
    cannot be imported does not stop the others; the exit code is then 1.

    Args:
        source: Checkpoint files, or folders of them.
        out: The folder to write bundles to, as OUT/DETECTOR_REGION.DATABASE.
        vgg: A file of VGG-19 weights (torchvision's or timm's) for Capsule checkpoints, most of
            which come without; by default timm's vgg19.tv_in1k is downloaded.
        fake_index: Which of the network's two classes is fake, 0 or 1, if it differs from the
            original program's.
        region: The region that was trained on, if the file's name does not say it.
        database: The database that was trained on, if the file's name does not say it.
        project: Where the files are from, if neither content nor name says it: bida, capsule-v2,
            dsp-fwa, faceforensics or deepfakebench.
        json: Print one JSON object per file and line instead of a table.
    """
    check_there(*source, vgg)

    from deepregions.weights.convert.importing import Importer, find_checkpoints

    importer = Importer(
        vgg=vgg, fake_index=fake_index, region=region, database=database, project=project
    )
    files = [path for path in find_checkpoints(source) if vgg is None or not path.samefile(vgg)]
    written: dict[Path, Path] = {}
    rows = []
    for path in checks.progress(files, "importing"):
        row = _import_one(path, importer, out, written)
        rows.append(row)
        if json:
            if row["error"] is not None:
                checks.warn(row["error"])
            checks.print_json(row, indent=None)
    if not json:
        _print(rows)
    return 0 if all(row["error"] is None for row in rows) else 1


def _import_one(
    path: Path, importer: Importer, out: Path, written: dict[Path, Path]
) -> dict[str, Any]:
    from deepregions.system import TrainedNetwork
    from deepregions.weights.convert.importing import save_imported, target_of

    row: dict[str, Any] = {"source": str(path), "bundle": None, "error": None}
    try:
        imported = importer(path)
        target = target_of(imported, out)
        if target in written:
            raise UsageError(
                f"{path} would become {target}, as {written[target]} did",
                "import it to another folder, or give it another --database",
            )
        save_imported(imported, out)
    except (DeepregionsError, OSError) as error:
        return row | {"error": printable(str(error))}
    written[target] = path
    row["bundle"] = str(target)
    if not isinstance(imported, TrainedNetwork):
        return row | {"kind": "backbone", "origin": dict(imported.source)}
    return row | {
        "kind": "bundle",
        "detector": imported.detector.name,
        "region": str(imported.region),
        "database": imported.database,
        "settings": imported.detector.settings(),
        "layout": imported.layout,
        "resample": imported.resample,
        "origin": imported.training["source"],
    }


def _print(rows: list[dict[str, Any]]) -> None:
    from rich.text import Text

    cells: list[Sequence[str | Text]] = []
    about: dict[str, list[str]] = {}  # each remark once, with the bundles that it is about
    for row in rows:
        name = Path(row["source"]).name
        if row["error"] is not None:
            cells.append((name, Text("refused", "red"), "", ""))
            continue
        origin, bundle, crop = row["origin"], Path(row["bundle"]).name, "-"
        if row["kind"] == "bundle":
            crop = f"{row['layout']} {row['settings']['size']} {row['resample']}"
        fake = "-" if origin["fake_index"] is None else str(origin["fake_index"])
        cells.append((name, bundle, crop, fake))
        licence = f"of {origin['project']}, licence: {origin['licence']}"
        for remark in (licence, *origin["remarks"]):
            about.setdefault(remark, []).append(bundle)
    errors = [row["error"] for row in rows if row["error"] is not None]
    checks.print_table(("file", "becomes", "crop", "fake class"), cells)
    checks.print_lines(
        f"{len(rows) - len(errors)} of {len(rows)} imported",
        *(f"refused: {error}" for error in errors),
    )
    for remark, names in about.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        checks.print_lines(f"note: {names[0]}{more}: {remark}")
