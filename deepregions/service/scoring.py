"""What a worker scores with: the same function as ``detect`` and the Python door."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from deepregions.service.settings import Progress, Scored, ServiceSettings

IMPORTED = ("torch", "deepregions.pipeline.build", "deepregions.weights.selection")
"""What takes a scorer seconds to import, and all of them can share."""

_TOGETHER = 8  # faces: more are hardly faster, take more memory, and keep their senders waiting


class FileScorer:
    """Networks that score files; made once in each worker.

    Raises:
        DeepregionsError: They cannot be loaded.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        # The web process has no use for torch.
        from deepregions.devices import share_cores  # noqa: PLC0415
        from deepregions.media import MediaReader  # noqa: PLC0415
        from deepregions.pipeline.build import build_analyser, load_networks  # noqa: PLC0415

        share_cores(settings.workers)
        self._analyser = build_analyser(
            load_networks(settings.bundle),
            landmarks="auto",
            runtime=cast("Any", settings.runtime),
            batch_size=_TOGETHER,
        )
        self._reader = MediaReader()
        self.facts: Mapping[str, Any] = self._analyser.facts

    def __call__(self, paths: Iterable[Path], progress: Progress) -> Iterator[Scored]:
        """Yields each file's result and page; in both, its path is its bare name."""
        self._analyser.progress = progress
        answers = self._analyser.analyse(paths, self._reader, first=_TOGETHER)
        with closing(answers) as results:  # type: ignore[type-var]
            for result in results:
                path, name = result.input, Path(result.input).name
                told = replace(
                    result,
                    input=name,
                    reason=result.reason.replace(path, name),
                    warnings=tuple(each.replace(path, name) for each in result.warnings),
                )
                yield told.to_dict(), told.to_html()
