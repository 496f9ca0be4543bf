"""Does heat fall on what was forged? ``python benchmarks/attribution.py --store S --bundle B``.

Every genuine face of the store's test split is forged by each method, confined to its eyes, nose or
mouth (drawn evenly), as ``deepregions forge --store S --region-p 1.0`` does.

Of the heat of a network for the entire face, towards fake, is measured

- the share that lies in the forged region, against the region's share of the canvas, and against
  the share that lies there on the same face as it was: a network that always looks at the middle
  of faces has the latter, too;
- how often the forged region is the one of the three with the most heat for its area. Where regions
  are drawn evenly, that is 1/3 for heat that does not know what was forged, whatever it prefers;
  of the same faces as they were, those that have heat should give that.

Intervals are 95 %, by bootstrap over people, as a person's forgeries by several methods are alike.
Faces without any heat are counted and left out of shares; in the rate they are misses.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from deepregions.data.forged_store import forge_store
from deepregions.data.store import FaceRecord, FaceStore, decode_image
from deepregions.devices import choose_device
from deepregions.errors import UsageError
from deepregions.faces.cropping import RegionCropper
from deepregions.forge import METHODS
from deepregions.forge.masks import CONFINED
from deepregions.pipeline.explain.gradcam import Heat, heats, share
from deepregions.pixels.tensors import stack
from deepregions.system import System
from deepregions.types import BONA_FIDE, Region
from deepregions.weights.selection import Choice, choose_members

Floats = npt.NDArray[np.float64]
_BATCH = 16
_ROUNDS = 2000


@dataclass(frozen=True)
class Measured:
    """One forgery.

    Attributes:
        person: Who.
        method: By which forgery.
        region: What was forged, a place in ``CONFINED``.
        called: Whether the network calls it fake.
        shares: (3,) of the heat, in each of ``CONFINED``; NaN without heat.
        before: (3,) the same of the genuine face.
        areas: (3,) of the canvas.
    """

    person: str
    method: str
    region: int
    called: bool
    shares: Floats
    before: Floats
    areas: Floats


def measure(system: System, store: FaceStore, split: str, device: torch.device) -> list[Measured]:
    """Measures all confined forgeries of a split of a forged store.

    Args:
        system: One network, for the entire face.
        store: As ``deepregions forge --store`` writes it.
        split: Which part.
        device: Where to compute.

    Raises:
        UsageError: The system is not one network for the entire face, or a forgery is not
            confined to a region or not of a face of the store.
    """
    if [member.region for member in system.members] != [Region.ENTIRE]:
        raise UsageError("heat on forgeries is that of one network for the entire face")
    rows = np.flatnonzero(store.splits == split)
    before: dict[str, Floats] = {}
    found = []
    for genuine in (True, False):
        wanted = [row for row in rows.tolist() if (store.labels[row] == BONA_FIDE) == genuine]
        for first in range(0, len(wanted), _BATCH):
            faces = [store[row] for row in wanted[first : first + _BATCH]]
            for face, called, shares, areas in _looked(system, faces, device):
                if genuine:
                    before[face.key] = shares
                    continue
                method, _, region = face.method.partition(":")
                own = before.get(face.key.rpartition("~")[0])
                if region not in CONFINED or own is None:
                    raise UsageError(
                        f"{face.key} is no forgery of one region of a face of the store",
                        "make the store with: deepregions forge --region-p 1.0",
                    )
                place = CONFINED.index(Region(region))
                who = face.identities[0] if face.identities else face.video
                found.append(Measured(who, method, place, called, shares, own, areas))
    return found


def _looked(
    system: System, faces: Sequence[FaceRecord], device: torch.device
) -> Iterator[tuple[FaceRecord, bool, Floats, Floats]]:
    stacked = stack([decode_image(face.image) for face in faces])
    image, extent = (each.to(device) for each in stacked)
    landmarks = torch.from_numpy(np.stack([face.landmarks for face in faces])).to(device)
    (heat,) = heats(system, image, landmarks, extent, batch_size=_BATCH)
    with torch.inference_mode():
        called = (system(image, landmarks, extent).fused >= 0).tolist()
    shares, areas = region_shares(heat, landmarks, extent)
    yield from zip(faces, called, shares, areas, strict=True)


def region_shares(
    heat: Heat, landmarks: torch.Tensor, extent: torch.Tensor
) -> tuple[Floats, Floats]:
    """Shares (B, 3) of heat on the canvas and of the canvas's area, in each of ``CONFINED``."""
    cropper = RegionCropper(heat.crops.shape[-1], CONFINED)
    masks = cropper.masks(landmarks, extent)
    on_crop = heat.on_crop()
    shares = torch.stack([share(on_crop, masks[:, n]) for n in range(len(CONFINED))], 1)
    return shares.double().cpu().numpy(), masks.double().mean((2, 3)).cpu().numpy()


def bootstrap(
    values: Floats | npt.NDArray[np.bool_], people: Sequence[str], rounds: int = _ROUNDS
) -> tuple[float, float, float]:
    """The mean of what is not NaN, and its 95 % interval by bootstrap over people."""
    _, who = np.unique(people, return_inverse=True)
    known = ~np.isnan(values)
    total = np.bincount(who, np.where(known, values, 0.0))
    count = np.bincount(who, known)
    drawn = np.random.default_rng(0).integers(0, len(total), (rounds, len(total)))
    means = total[drawn].sum(1) / np.maximum(count[drawn].sum(1), 1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(total.sum() / max(count.sum(), 1)), float(low), float(high)


def summarise(found: Sequence[Measured]) -> dict[str, float | tuple[float, float, float]]:
    """Returns the figures of forgeries by name: numbers, or means with their interval.

    Raises:
        UsageError: There are none.
    """
    if not found:
        raise UsageError("there are no forgeries to measure heat on")
    place = np.array([each.region for each in found])
    one = np.arange(len(found))
    shares, before, areas = (
        np.stack([getattr(each, name) for each in found]) for name in ("shares", "before", "areas")
    )
    people = [each.person for each in found]
    heated = ~np.isnan(shares[:, 0])
    own = shares[one, place]
    return {
        "forgeries": len(found),
        "without heat": int((~heated).sum()),
        "without heat before": int(np.isnan(before[:, 0]).sum()),
        "called fake": float(np.mean([each.called for each in found])),
        "share of heat": bootstrap(own, people),
        "share of area": bootstrap(np.where(heated, areas[one, place], np.nan), people),
        "share of heat before": bootstrap(np.where(heated, before[one, place], np.nan), people),
        "forged less before": bootstrap(own - before[one, place], people),
        "region has most": bootstrap(_densest(shares, areas) == place, people),
        "of those with heat": _rate(shares, areas, place, people),
        "of those with heat before": _rate(before, areas, place, people),
    }


def _rate(
    shares: Floats, areas: Floats, place: npt.NDArray[np.int64], people: Sequence[str]
) -> tuple[float, float, float]:
    """How often the region in its place has the most heat for its area, where there is heat."""
    densest = _densest(shares, areas)
    return bootstrap(np.where(densest >= 0, densest == place, np.nan), people)


def _densest(shares: Floats, areas: Floats) -> npt.NDArray[np.int64]:
    """(N,) the region with the most heat for its area; -1 without heat."""
    density = np.nan_to_num(shares / areas, nan=-1.0)
    return np.where(density.max(1) >= 0, density.argmax(1), -1)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--store", type=Path, required=True, help="genuine faces")
    parser.add_argument("--bundle", type=Path, required=True, help="has a network for entire")
    parser.add_argument("--detector", help="which of its detectors")
    parser.add_argument("--split", default="test")
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    device = choose_device(options.device)
    choice = Choice.named(detector=options.detector, region="entire")
    members = choose_members(choice, [options.bundle])
    if len(members) != 1:
        raise UsageError(f"there are {len(members)} networks", "choose one with --detector")
    with tempfile.TemporaryDirectory() as folder:
        forged = Path(folder) / "forged"
        source = FaceStore(options.store)
        forge_store(source, forged, options.methods, region_p=1.0, seed=options.seed, device=device)
        system = System(members).to(device)
        found = measure(system, FaceStore(forged), options.split, device)
    print(f"{members[0].name} on {options.store.name}, {options.split} split, {device}")
    groups = {"all": found}
    groups |= {m: [each for each in found if each.method == m] for m in options.methods}
    groups |= {
        str(region): [each for each in found if each.region == n]
        for n, region in enumerate(CONFINED)
    }
    groups["called fake"] = [each for each in found if each.called]
    for name, group in groups.items():
        print(f"\n{name}")
        for what, value in (summarise(group) if group else {}).items():
            if isinstance(value, tuple):
                said = "{:.3f} [{:.3f}, {:.3f}]".format(*value)
            else:
                said = f"{value:.4g}"
            print(f"  {what:<26}{said}")


if __name__ == "__main__":
    main()
