"""Selects which of the networks at hand to use: by detector, region and database."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Self

from deepregions.detectors.backbone import is_known
from deepregions.errors import UsageError
from deepregions.system import TrainedNetwork
from deepregions.types import CropSpec, Region
from deepregions.weights.bundle import Bundle, known_detectors, load_bundle
from deepregions.weights.bundle_folder import find_bundles, implied_bundle, models_folders
from deepregions.weights.convert.profiles import database_of, region_of
from deepregions.weights.hub import hub_name
from deepregions.weights.manifest import BundleFacts


@dataclass(frozen=True)
class Choice:
    """What is wanted of a network: its detector's name, region and database; None is any."""

    detector: str | None = None
    region: Region | None = None
    database: str | None = None

    @classmethod
    def named(
        cls, *, detector: str | None = None, region: str | None = None, database: str | None = None
    ) -> Self:
        """Makes a choice of names in any usual spelling.

        Raises:
            UsageError: There is no such detector or region, or a name is none.
        """
        return cls(
            None if detector is None else detector_of(detector),
            None if region is None else region_of(region),
            None if database is None else database_of(database),
        )

    def fits(self, detector: str, region: str, database: str) -> bool:
        """Returns whether a network is wanted."""
        return (
            self.detector in (None, detector)
            and self.region in (None, region)
            and (self.database is None or self.database.lower() == database.lower())
        )

    def __str__(self) -> str:
        said = f"{self.detector or ''} network".strip()
        said += f" for {self.region}" if self.region else ""
        return said + (f" trained on {self.database}" if self.database else "")


def detector_of(name: str) -> str:
    """Returns a detector's name, such as ``dsp-fwa`` for ``DSPFWA``, or timm's of a network.

    Raises:
        UsageError: There is none; the hint names ours.
    """
    kinds = known_detectors().values()
    known = [kind.name for kind in kinds if hasattr(kind, "name")]
    for each in known:
        if _plain(each) == _plain(name):
            return each
    if is_known(name):
        return name
    raise UsageError(f"there is no detector {name!r}", f"one of {', '.join(sorted(known))}")


def choose_members(choice: Choice, bundles: Sequence[Path] | None = None) -> Bundle:
    """Loads the networks that are wanted of all bundles, as one; see :func:`choose_bundles`.

    Fusion and calibration are kept if they are for exactly these networks.
    """
    chosen = _chosen(choice, bundles)
    if len(chosen) == 1:
        return chosen[0][1]
    members = tuple(member for _, bundle in chosen for member in bundle)
    notes = [_unfused(path) for path, bundle in chosen if bundle.is_fused]
    notes += [note for _, bundle in chosen for note in bundle.notes]
    facts = BundleFacts.together(bundle.facts for _, bundle in chosen)
    return Bundle(members, notes=tuple(notes), facts=facts)


def choose_bundles(choice: Choice, bundles: Sequence[Path] | None = None) -> dict[str, Bundle]:
    """Loads the networks that are wanted, and no others where a folder holds many bundles.

    A bundle's fusion and calibration are for all its networks together: of one that is not wanted
    as a whole they are left out, which its notes say. Without ``bundles`` it is the default bundle
    or the usual folders. Keys are the names of folders, or paths where two have one name.

    Raises:
        UsageError: There are none, or none that is wanted.
        BundleError: A bundle cannot be loaded.
        AssetError: A bundle on the Hugging Face Hub cannot be had.
    """
    found: dict[str, Bundle] = {}
    for path, bundle in _chosen(choice, bundles):
        found[path.name if path.name not in found else str(path)] = bundle
    return found


def _chosen(choice: Choice, bundles: Sequence[Path] | None) -> list[tuple[Path, Bundle]]:
    chosen = []
    for path, bundle in _opened(choice, bundles):
        members = tuple(_members(choice, bundle))
        notes = (_unfused(path),) if bundle.is_fused else ()
        whole = len(members) == len(bundle)
        if members:
            facts = BundleFacts.together([bundle.facts])
            part = Bundle(members, notes=notes, facts=facts)
            chosen.append((path, bundle if whole else part))
    return chosen


def _unfused(path: Path) -> str:
    return (
        f"the fusion of {path} is left out, as it is for exactly the networks of that bundle: the "
        "mean is used, uncalibrated"
    )


def distinct(bundles: Iterable[Bundle]) -> list[TrainedNetwork]:
    """Returns the networks of bundles; one that several hold, by name and weights, once."""
    found: dict[tuple[str, str, CropSpec], TrainedNetwork] = {}
    for member in chain.from_iterable(bundles):
        found.setdefault((member.name, member.sha256, member.cut), member)
    return list(found.values())


def _opened(choice: Choice, bundles: Sequence[Path] | None) -> list[tuple[Path, Bundle]]:
    """Loads the bundles that are named, and those of folders that hold something wanted."""
    names: list[str] = []
    chosen: list[Path] = []
    for path in bundles or _places(choice):
        if bundles and (hub_name(str(path)) or not path.is_dir() or not find_bundles([path])):
            chosen.append(path)  # it is loaded, or loading says what is wrong with it
            continue
        for each in find_bundles([path]):
            names += [str(entry.get("name")) for entry in each.members]
            if each.path == path or any(_wanted(choice, entry) for entry in each.members):
                chosen.append(each.path)
    if not chosen and not names:
        where = ", ".join(map(str, models_folders())) or "./models and ./bundles"
        raise UsageError(
            f"there are no networks to score with (looked in {where})",
            "--bundle DIR names some; deepregions fit and import make them",
        )
    opened = [load_bundle(bundle) for bundle in chosen]
    loaded = [member for bundle in opened for member in bundle]
    if not any(_members(choice, bundle) for bundle in opened):
        known = sorted({*names, *(member.name for member in loaded)})
        shown = ", ".join(known[:12]) + (f" and {len(known) - 12} more" if len(known) > 12 else "")
        raise UsageError(f"there is no {choice}", f"there are: {shown}")
    return list(zip(chosen, opened, strict=True))


def _places(choice: Choice) -> list[Path]:
    """Returns where to look if no bundle is named: the default one, unless others are wanted."""
    default = implied_bundle()
    return models_folders() if default is None or choice != Choice() else [default]


def _members(choice: Choice, bundle: Bundle) -> list[TrainedNetwork]:
    return [m for m in bundle if choice.fits(m.detector.name, m.region, m.database)]


def _wanted(choice: Choice, entry: Mapping[str, Any]) -> bool:
    region, database = str(entry.get("region")), str(entry.get("database"))
    detector = str(entry.get("name", "")).removesuffix(f"_{region}.{database}")
    return choice.fits(detector, region, database)


def _plain(name: str) -> str:
    return re.sub(r"[-_ ]", "", name.lower())
