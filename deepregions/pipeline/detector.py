"""The Python interface: a file, or a picture in memory, becomes a result."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import groupby
from pathlib import Path
from threading import Lock
from typing import Any, Literal, Self, cast, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deepregions.deploy.bundle_graph import takes_graph
from deepregions.errors import BundleError, UsageError
from deepregions.faces.thresholds import Gates
from deepregions.fusion.pooling import Pooling
from deepregions.media import MediaReader, OpenImage, Sampling
from deepregions.pipeline.analyser import Analyser
from deepregions.pipeline.build import build_analyser, load_networks
from deepregions.pipeline.results import Result
from deepregions.weights.hub import hub_name

Input = str | os.PathLike[str] | Image.Image | NDArray[np.uint8]
"""A photograph's or video's path, a picture, or its pixels (H, W, 3), RGB."""

BundleName = str | os.PathLike[str]
"""A bundle's folder, a folder of bundles, ``hf://owner/name`` on the Hugging Face Hub, or a file of
``deepregions export --standalone``."""


def load(
    bundle: BundleName | Sequence[BundleName] | None = None,
    *,
    device: str = "auto",
    runtime: Literal["torch", "onnxruntime", "openvino", "auto"] | None = None,
    landmarks: str = "auto",
    sampling: Sampling | None = None,
    rules: Pooling | None = None,
    gates: Gates | None = None,
    batch_size: int = 16,
    pictures: bool = True,
) -> Detector:
    """Loads networks, as the command ``detect`` does with the same options.

    Args:
        bundle: One or several; without, the networks that ``detect`` uses.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        runtime: What runs the networks; ``"auto"`` is the fastest that is installed. By default
            onnxruntime for a bundle with a graph, where there is no GPU; otherwise PyTorch.
        landmarks: The landmark backend, by the name that ``detect --landmarks`` takes.
        sampling: Which frames of a video are looked at; 32, evenly spaced, by default.
        rules: How the scores of frames and people become one.
        gates: When a face is good enough to be judged.
        batch_size: Faces of a file that are scored at once.
        pictures: Whether results keep the pictures that their pages show.

    Raises:
        BundleError: A bundle is not there, or cannot be loaded.
        UsageError: There are no networks, or a name is unknown.
        AssetError: A file of the Hub or of the landmark backend cannot be had.
        MissingExtraError: The runtime is not installed.
    """
    names = [bundle] if isinstance(bundle, str | os.PathLike) else bundle
    paths = None if names is None else [Path(name) for name in names]
    for path in paths or ():
        if hub_name(path) is None and not path.exists():
            raise BundleError(f"{path}: no such bundle", "give a folder, or hf://owner/name")
    analyser = build_analyser(
        load_networks(paths, as_graph=takes_graph(runtime, device)),
        landmarks=landmarks,
        device=device,
        sampling=sampling,
        rules=rules,
        gates=gates,
        batch_size=batch_size,
        pictures=pictures,
        runtime=runtime,
    )
    return Detector(analyser)


class Detector:
    """Networks that are ready to score; :func:`load` makes one.

    Files are opened in a process of its own, which stays for the next call; it ends with
    :meth:`close`, with a ``with`` block, or with this process. Calls from several threads wait for
    each other.
    """

    def __init__(self, analyser: Analyser) -> None:
        self._analyser = analyser
        self._reader = MediaReader()
        self._lock = Lock()

    @overload
    def __call__(self, inputs: Input) -> Result: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, inputs: Sequence[Input]) -> list[Result]: ...
    def __call__(self, inputs: Input | Sequence[Input]) -> Result | list[Result]:
        """Scores one input, or several in their order.

        What cannot be opened or judged has a status and a reason, and no score.

        Raises:
            UsageError: A file is not there, or an input is none.
        """
        if isinstance(inputs, str) or not isinstance(inputs, Sequence):
            return self([inputs])[0]
        checked = [_checked(one) for one in inputs]
        with self._lock:
            return list(self._judged(checked, together=True))

    def each(self, inputs: Iterable[Input]) -> Iterator[Result]:
        """Scores inputs as they come, one at a time: however many there are, memory stays flat.

        Raises:
            UsageError: An input is neither path nor picture; inputs are looked at one ahead.
        """
        checked = (_checked(one, missing=True) for one in inputs)
        with closing(self._judged(checked, together=False)) as results:
            while True:
                with self._lock:
                    result = next(results, None)
                if result is None:
                    return
                yield result

    def close(self) -> None:
        """Ends the process that opens files; a later call starts another."""
        with self._lock:
            self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _judged(
        self, inputs: Iterable[Path | OpenImage], *, together: bool
    ) -> Generator[Result, None, None]:
        for kind, group in groupby(inputs, type):
            if kind is OpenImage:
                yield from map(self._analyser.judge, cast("Iterator[OpenImage]", group))
            else:
                paths = cast("Iterator[Path]", group)
                yield from self._analyser.analyse(paths, self._reader, together=together)


def _checked(one: Any, *, missing: bool = False) -> Path | OpenImage:
    """Returns a file's path, or a picture; files may be ``missing`` where others must go on."""
    if isinstance(one, str | os.PathLike):
        path = Path(one)
        if missing:
            return path
        if not os.path.lexists(path):
            raise UsageError(f"{path}: no such file", "check the path")
        if path.is_dir():
            raise UsageError(f"{path}: a folder", "give the files in it, as a list")
        return path
    if isinstance(one, Image.Image):
        return OpenImage(one, Path(getattr(one, "filename", "") or "picture"))
    if not isinstance(one, np.ndarray):
        raise UsageError(
            f"an input is of type {type(one).__name__}", "give a path, a PIL image or a NumPy array"
        )
    if one.dtype != np.uint8 or one.ndim != 3 or one.shape[2] != 3 or not one.size:
        raise UsageError(
            f"an array of {one.dtype} {one.shape} is no picture", "uint8 (height, width, 3), RGB"
        )
    return OpenImage(Image.fromarray(one), Path("picture"))
