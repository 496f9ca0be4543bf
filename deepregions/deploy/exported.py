"""An exported file that ``detect`` runs as it stands: networks, fusion, calibration, limits.

``deepregions export --standalone`` writes it, or ``--into-bundle`` as a bundle's graph, and nothing
here needs PyTorch. The file may come from a stranger: what it says of itself is checked, and so are
the shapes of its answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray

from deepregions.deploy.bundle_graph import read_graph
from deepregions.deploy.onnx_metadata import face_answers, read_facts
from deepregions.deploy.runtimes import Arrays, Runtime, open_known
from deepregions.deploy.runtimes import Name as RuntimeName
from deepregions.devices import threads
from deepregions.errors import UnreadableError, UsageError
from deepregions.faces.thresholds import Gates
from deepregions.fusion.calibration import Calibration, Quantity
from deepregions.fusion.pooling import Pooling
from deepregions.types import CropSpec, Layout, Level, Region, Resample
from deepregions.weights.manifest import (
    GRAPH,
    BundleFacts,
    LongName,
    Name,
    Span,
    Text,
    checked,
    facts_of,
)

if TYPE_CHECKING:
    from deepregions.weights.bundle import Bundle

_MOST = 1024  # rows and networks of a stranger's file
_AGAIN = "deepregions export --standalone writes one"


@dataclass(frozen=True)
class ExportedNetwork:
    """What a file says of one of its networks; ``landmarks`` are those that it was trained on."""

    name: LongName
    detector: Text
    region: Region
    database: Name
    sha256: Annotated[str, Span(0, 64)]
    size: Annotated[int, Span(1, 1024)]
    layout: Layout
    resample: Resample
    landmarks: dict[str, Any] | None = None

    @property
    def cut(self) -> CropSpec:
        """How its crops are made."""
        return CropSpec(self.size, self.layout, self.resample)


def about_bundle(bundle: Bundle) -> dict[str, Any]:
    """Returns what a file says of the bundle that it is made of, as JSON values."""
    calibration = bundle.calibration
    return {
        "calibration": None if calibration is None else calibration.settings(),
        "facts": bundle.facts.settings(),
    }


class ExportedSystem:
    """A system as a file, or as a bundle's graph in its folder, and what it says of itself.

    Attributes:
        rows: D names of detectors, as :class:`~deepregions.system.System` has them.
        cells: The place (row, column) of each network.
        cuts: For each kind of crop, which regions are cut so.

    Raises:
        UnreadableError: The file is not there, or not one of ours.
        UnsupportedError: Its weights are in other files, or the runtime cannot run it.
        BundleError: A graph's weights are not those of its bundle.
    """

    notes: tuple[str, ...] = ()

    def __init__(self, path: Path, runtime: RuntimeName = "onnxruntime") -> None:
        graph = path.is_dir()
        about = read_graph(path) if graph else read_facts(path)
        path = path / GRAPH if graph else path
        if about["takes"] != "faces":
            raise UsageError(f"{path} takes {str(about['takes'])[:20]}, not faces", _AGAIN)
        try:
            self._understand(about)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            what = f"{error} is missing" if isinstance(error, KeyError) else str(error)[:300]
            raise UnreadableError(
                f"{path} does not say what it should of itself: {what}", _AGAIN
            ) from error
        self.path = path
        # Each face by one thread: several that share an operation wait for each other.
        self.runtime: Runtime = open_known(runtime, path, at_once=threads())
        self._shapes = face_answers(self)
        if missing := self._shapes.keys() - {*self.runtime.outputs}:
            raise UnreadableError(f"{path} does not answer {', '.join(sorted(missing))}", _AGAIN)

    def network_facts(self) -> list[dict[str, Any]]:
        """Returns what results say of each network, as :class:`~deepregions.system.System` does."""
        names = ("name", "detector", "region", "database", "sha256", "landmarks")
        return [{name: getattr(each, name) for name in names} for each in self.networks]

    def quantity(self, level: Level, pooling: Pooling) -> Quantity:
        """Returns what its scores are at a level under some rules, for its calibration to match."""
        digests = [network.sha256 for network in self.networks]
        return Quantity.pooled(level, pooling, self.rule, digests if all(digests) else ())

    def run(
        self, faces: Mapping[str, NDArray[Any]], gates: Gates, *, pictures: bool = False
    ) -> Arrays:
        """Answers what :class:`~deepregions.deploy.graph.FacesGraph` does; it adds the gates.

        What is not a finite number is no answer. Nor is what was fused into none, though the
        networks' log-odds are: then none of them is valid. With ``pictures`` it also gives the
        crops that the networks saw.

        Raises:
            UnreadableError: The answers are not of the shapes that they should be.
        """
        wanted = [name for name in self._shapes if pictures or not name.startswith("seen_")]
        given = dict(faces) | {"gates": np.array(astuple(gates), np.float32)}
        answers = self.runtime.run(given, wanted)
        batch = len(faces["image"])
        for name in wanted:
            if answers[name].shape != (batch, *self._shapes[name]):
                raise UnreadableError(f"{self.path}: {name} has the wrong shape", _AGAIN)
        logits, fused = answers["logits"], answers["fused"]
        broken = ~np.isfinite(fused)
        valid = answers["valid"].astype(bool) & np.isfinite(logits) & ~broken[:, None, None]
        answered = valid.reshape(batch, -1).any(1)
        return answers | {
            "valid": valid,
            "logits": np.where(valid, logits, np.float32(0)),
            "fused": np.where(answered, fused, np.float32(np.nan)),
        }

    def _understand(self, about: Mapping[str, Any]) -> None:
        self.networks = tuple(
            checked(each, ExportedNetwork, "a network") for each in about["networks"]
        )
        self.rows = tuple(checked(row, Text, "a detector") for row in about["detectors"])
        self.regions = tuple(Region(region) for region in about["regions"])
        if not 1 <= len(self.networks) <= _MOST or len(self.rows) > _MOST:
            raise ValueError(f"it has {len(self.networks)} networks")
        self.cells = [
            (self.rows.index(each.detector), self.regions.index(Region(each.region)))
            for each in self.networks
        ]
        wanted = {(each.cut, each.region) for each in self.networks}
        self.cuts = {
            cut: tuple(region for region in self.regions if (cut, region) in wanted)
            for cut in sorted({cut for cut, _ in wanted})
        }
        self.rule = checked(about["fusion"], Text, "its fusion")
        self.fusion_sha256 = checked(about["fusion_sha256"], Annotated[str, Span(0, 64)], "SHA-256")
        calibration = about.get("calibration")
        self.calibration = None if calibration is None else Calibration.of(calibration)
        self.facts: BundleFacts = facts_of(about.get("facts", {}))
