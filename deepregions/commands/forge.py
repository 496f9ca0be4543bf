"""``deepregions forge``: forged faces, from photographs or from a face store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from deepregions.commands import checks
from deepregions.commands.options import check_stores, photographs
from deepregions.errors import DeepregionsError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deepregions.forge.photos import Portrait

NOTHING_FOUND = 5


def forge(
    photos: list[Path] | None = None,
    *,
    out: Path,
    method: Literal["fwa", "self_blend", "swap"] = "self_blend",
    region: Literal["eyes", "nose", "mouth"] | None = None,
    store: Path | None = None,
    methods: list[str] | None = None,
    region_p: float = 0.0,
    seed: int = 0,
    landmarks: str = "auto",
    device: str = "auto",
) -> int:
    """Makes forged faces from photographs, or from a face store.

    From photographs: forges the largest face of each and writes
    OUT/PHOTO/{forged,mask,side_by_side}.png in the photograph's own size, and forge.json, which
    says what was done. The pictures' metadata says that they are synthetic, which `detect` tells.
    Each photograph is taken to show another person. Prints one folder per line; exits with 5 if no
    face was found.

    From a store (--store): writes another store with each genuine face and a forgery of it by
    each method.

    Args:
        photos: Photographs, or folders of them.
        out: The folder to write to.
        method: fwa: the face loses detail and is warped back (DSP-FWA); self_blend: blended with
            an altered copy of itself; swap: blended with the face of another photograph.
        region: Confine the forgery to this region of the face: eyes, nose or mouth.
        store: A face store to forge instead of photographs.
        methods: With --store: the methods to use; all three by default.
        region_p: With --store: the share of forgeries confined to eyes, nose or mouth.
        seed: Random seed.
        landmarks: Landmark backend: auto, dlib, dlib-hog or face_alignment.
        device: auto, cpu, cuda or cuda:N.
    """
    if bool(photos) == (store is not None):
        raise UsageError("give photographs to forge, or a store with --store, and not both")
    if store is not None and region is not None:
        raise UsageError("--region is for photographs", "for a store there is --region-p")
    if photos and (methods is not None or region_p):
        raise UsageError(
            "--methods and --region-p are for --store", "photographs have --method and --region"
        )

    check_stores(store)
    files = photographs(photos, "forge") if photos else []

    from deepregions.devices import choose_device

    device = str(choose_device(device))
    if store is not None:
        return _forge_store(store, out, methods, region_p=region_p, seed=seed, device=device)

    from deepregions.files import Names
    from deepregions.forge.photos import forge_photo, pair_donors, write_photo
    from deepregions.types import Region

    found = _portraits(files, landmarks, device)
    if not found:
        return NOTHING_FOUND
    donors: Sequence[Portrait | None] = [None] * len(found)
    if method == "swap":
        donors = pair_donors(found, seed)
    names, written = Names(), 0
    pairs = list(zip(found, donors, strict=True))
    for portrait, donor in checks.progress(pairs, "forging"):
        folder = out / names.unused(portrait.path.stem)
        try:
            photo = forge_photo(
                portrait,
                method,
                region=Region(region) if region else None,
                seed=seed,
                donor=donor,
                device=device,
            )
        except DeepregionsError as error:
            checks.warn(str(error))
            continue
        write_photo(photo, folder)
        checks.print_lines(str(folder))
        written += 1
    return 0 if written else NOTHING_FOUND


def _portraits(files: Sequence[Path], landmarks: str, device: str) -> list[Portrait]:
    """The photographs with a face; a line on standard error for each of the others."""
    from deepregions.faces.backends import landmark_detector
    from deepregions.forge.photos import find_portrait

    detector = landmark_detector(landmarks, device)
    found = []
    for path in checks.progress(files, "finding faces"):
        try:
            portrait = find_portrait(path, detector)
        except DeepregionsError as error:
            checks.warn(str(error))
            continue
        if portrait is None:
            checks.warn(f"{path}: no face was found")
        else:
            found.append(portrait)
    return found


def _forge_store(
    store: Path, out: Path, methods: list[str] | None, *, region_p: float, seed: int, device: str
) -> int:
    from deepregions.data.forged_store import forge_store
    from deepregions.data.store import FaceStore
    from deepregions.forge import METHODS

    with checks.counted("forging") as progress:
        report = forge_store(
            FaceStore(store),
            out,
            methods or METHODS,
            region_p=region_p,
            seed=seed,
            device=device,
            progress=progress,
        )
    checks.print_lines(
        f"{report.genuine} genuine faces",
        *(f"{count} forged by {name}" for name, count in report.forged.items()),
    )
    for name, count in report.skipped.items():
        checks.warn(f"{count} faces could not be forged by {name}")
    checks.print_lines(f"store: {out}")
    return 0
