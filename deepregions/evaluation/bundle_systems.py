"""Systems that were fused and calibrated before: what a bundle holds, measured as it is.

Beside the fusions that an evaluation finds for itself, which have seen the development parts of
the very stores that are evaluated, such a system is what ``deepregions detect`` uses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from deepregions.data.store import FaceStore
from deepregions.evaluation.protocols import ScoredSystem
from deepregions.evaluation.store_scorer import scores_of
from deepregions.fusion import MeanFusion, fuse_table
from deepregions.fusion.calibration import Calibration, Level
from deepregions.fusion.pooling import Pooling
from deepregions.fusion.score_table import ScoreTable
from deepregions.roc import Floats
from deepregions.weights.bundle import Bundle


@dataclass(frozen=True, eq=False)
class BundleSystem:
    """A bundle's networks with its own fusion and calibration.

    Attributes:
        name: What the bundle is called, unique among those that are evaluated.
        bundle: With a fusion, a calibration or both.
    """

    name: str
    bundle: Bundle

    @property
    def trained_on(self) -> str:
        """The database that its networks learned from; empty if these are several."""
        databases = {member.database for member in self.bundle}
        return databases.pop() if len(databases) == 1 else ""

    @property
    def system(self) -> ScoredSystem:
        """Its name among systems."""
        rule = (self.bundle.fusion or MeanFusion()).rule
        return ScoredSystem(f"bundle {self.name}: {rule}", None, self.trained_on)

    def log_odds(self, table: ScoreTable) -> Floats:
        """Returns (N,) what it says of faces that its networks scored, NaN where nothing.

        Raises:
            UsageError: The scores are of other networks.
        """
        return fuse_table(self.bundle.fusion or MeanFusion(), scores_of(table, self.bundle.members))

    def calibration(self, level: Level, pooling: Pooling) -> Calibration | str:
        """Returns its calibration, or why it has none for scores at a level under some rules."""
        found = self.bundle.calibration
        if found is None:
            return f"the bundle {self.name} holds no calibration"
        return found.quantity.mismatch(self.bundle.quantity(level, pooling)) or found

    def notes(self, stores: Sequence[FaceStore]) -> Iterator[str]:
        """Yields what a reader of its figures should know of where it was fitted.

        Args:
            stores: Those that are evaluated.
        """
        found = self.bundle.calibration
        if found is None:
            yield (
                f"{self.system.name} is as stored, and does not say on which store its fusion was "
                "found: people of the evaluation part may have been in it"
            )
            return
        about = found.development
        prints: Mapping[str, str] = {each.info.database: each.fingerprint for each in stores}
        if about.store in prints.values():
            return
        where = f"{self.system.name} is as stored: found on the part {about.split} of "
        if about.database in prints:
            yield (
                f"{where}another store of {about.database} ({about.store[:12]}) than is evaluated "
                f"here ({prints[about.database][:12]}): people of the evaluation part may have "
                "been in it"
            )
        else:
            yield f"{where}{about.database} ({about.store[:12]}), which is not evaluated here"


def stored_systems(bundles: Mapping[str, Bundle]) -> list[BundleSystem]:
    """Returns those bundles, given by name, that are more than networks."""
    return [
        BundleSystem(name, bundle)
        for name, bundle in bundles.items()
        if bundle.fusion is not None or bundle.calibration is not None
    ]
