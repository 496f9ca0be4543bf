"""Tell manipulated faces from genuine ones, region by region."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deepregions.errors import BundleError, DeepregionsError, UsageError
    from deepregions.fusion.calibration import LikelihoodRatio
    from deepregions.pipeline.detector import Detector, load
    from deepregions.pipeline.results import FaceResult, Person, Result
    from deepregions.types import Region, Status
    from deepregions.weights.bundle import Bundle

__all__ = [
    "Bundle",
    "BundleError",
    "DeepregionsError",
    "Detector",
    "FaceResult",
    "LikelihoodRatio",
    "Person",
    "Region",
    "Result",
    "Status",
    "UsageError",
    "load",
]

try:
    __version__ = version("deepregions")
except PackageNotFoundError:  # the same code, without what training takes
    __version__ = version("deepregions-lite")

_HOMES = {
    "Bundle": "weights.bundle",
    "BundleError": "errors",
    "DeepregionsError": "errors",
    "Detector": "pipeline.detector",
    "FaceResult": "pipeline.results",
    "LikelihoodRatio": "fusion.calibration",
    "Person": "pipeline.results",
    "Region": "types",
    "Result": "pipeline.results",
    "Status": "types",
    "UsageError": "errors",
    "load": "pipeline.detector",
}


if not TYPE_CHECKING:  # or misspelt names would have a type

    def __getattr__(name: str) -> Any:
        """Imports what is public when it is asked for: torch takes seconds."""
        if name not in _HOMES:
            raise AttributeError(f"module 'deepregions' has no attribute {name!r}")
        return getattr(import_module(f"deepregions.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
