"""What a worker scores with: the same function as ``detect`` and the Python door."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from deepregions.service.settings import ServiceSettings

IMPORTED = ("torch", "deepregions.pipeline.build", "deepregions.weights.selection")
"""What takes a scorer seconds to import, and all of them can share."""


class FileScorer:
    """Networks that score files; made once in each worker.

    Raises:
        DeepregionsError: They cannot be loaded.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        # The web process has no use for torch.
        from deepregions.devices import share_cores  # noqa: PLC0415
        from deepregions.media import MediaReader  # noqa: PLC0415
        from deepregions.pipeline.build import build_analyser  # noqa: PLC0415
        from deepregions.weights.selection import Choice, choose_members  # noqa: PLC0415

        share_cores(settings.workers)
        self._analyser = build_analyser(
            choose_members(Choice(), settings.bundle),
            landmarks="auto",
            runtime=cast("Any", settings.runtime),
        )
        self._reader = MediaReader()
        self.facts: Mapping[str, Any] = self._analyser.facts

    def __call__(
        self, path: Path, progress: Callable[[int, int | None], None]
    ) -> tuple[dict[str, Any], str]:
        """Returns a file's result and page; in both, its path is its bare name."""
        self._analyser.progress = progress
        (result,) = self._analyser.analyse([path], self._reader)
        result = replace(
            result,
            input=path.name,
            reason=result.reason.replace(str(path), path.name),
            warnings=tuple(each.replace(str(path), path.name) for each in result.warnings),
        )
        return result.to_dict(), result.to_html()
