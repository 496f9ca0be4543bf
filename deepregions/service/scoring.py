"""What a worker scores with: the same function as ``detect`` and the Python door."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from deepregions.pipeline.results import Result
    from deepregions.service.settings import Progress, Scored, ServiceSettings

_TOGETHER = 8  # faces: more are hardly faster, take more memory, and keep their senders waiting


class FileScorer:
    """Networks that score files; made once in each worker.

    Raises:
        DeepregionsError: They cannot be loaded.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        # The web process has no use for torch.
        from deepregions.deploy.bundle_graph import takes_graph  # noqa: PLC0415
        from deepregions.devices import share_cores  # noqa: PLC0415
        from deepregions.media import MediaReader  # noqa: PLC0415
        from deepregions.pipeline.build import build_analyser, load_networks  # noqa: PLC0415

        share_cores(settings.workers)
        runtime = cast("Any", settings.runtime)
        self._analyser = build_analyser(
            load_networks(settings.bundle, as_graph=takes_graph(runtime, "auto")),
            landmarks="auto",
            runtime=runtime,
            batch_size=_TOGETHER,
            pictures="videos" if settings.pages_later else True,
        )
        self._pages_later = settings.pages_later
        self._reader = MediaReader()
        self.facts: Mapping[str, Any] = self._analyser.facts

    def __call__(self, paths: Iterable[Path], progress: Progress) -> Iterator[Scored]:
        """Yields each file's result and page, if it has one yet, both with its bare name.

        It may take further paths before it yields, but does not wait for all.
        """
        self._analyser.progress = progress
        answers = self._analyser.analyse(paths, self._reader, first=_TOGETHER)
        with closing(answers) as results:  # type: ignore[type-var]
            for result in results:
                told = _named(result)
                later = self._pages_later and told.kind == "image"
                yield told.to_dict(), "" if later else told.to_html()

    def page(self, path: Path) -> str:
        """Returns a photograph's page, for which it is scored again: most are never asked for."""
        pictures, self._analyser.pictures = self._analyser.pictures, True
        try:
            (result,) = self._analyser.analyse([path], self._reader)
        finally:
            self._analyser.pictures = pictures
        return _named(result).to_html()


def imported(settings: ServiceSettings) -> tuple[str, ...]:
    """Returns what takes a scorer seconds to import, and all of them can share."""
    from deepregions.deploy.bundle_graph import find_graph, takes_graph  # noqa: PLC0415 - onnx
    from deepregions.weights.bundle_folder import exported_file  # noqa: PLC0415

    names = "deepregions.pipeline.build", "deepregions.pipeline.exported_scorer"
    graph = takes_graph(settings.runtime, "auto") and find_graph(settings.bundle)
    if graph or exported_file(settings.bundle or ()):
        return names
    return (*names, "torch", "deepregions.weights.selection")


def _named(result: Result) -> Result:
    """Returns a result under its file's bare name."""
    path, name = result.input, Path(result.input).name
    return replace(
        result,
        input=name,
        reason=result.reason.replace(path, name),
        warnings=tuple(each.replace(path, name) for each in result.warnings),
    )
