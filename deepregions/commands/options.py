"""Options that several commands share, and what a path on the command line may be."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from deepregions.errors import StoreError, UsageError

if TYPE_CHECKING:
    from deepregions.media import Sampling
    from deepregions.pipeline.analyser import Analyser
    from deepregions.types import Region
    from deepregions.weights.bundle import Bundle

_DEPTH = 3  # folders between a folder of bundles and a bundle, at most


class OptionGroup:
    """A dataclass whose fields are options of a command, without a prefix."""


@dataclass(frozen=True)
class NetworkOptions(OptionGroup):
    """Networks.

    Attributes:
        bundle: Bundles, or folders of bundles, as `deepregions fit` and `deepregions import`
            write them; hf://OWNER/NAME downloads one. Or one file of `deepregions export
            --standalone`, for detect, serve and archive. Without this option: the bundles in
            $DEEPREGIONS_MODELS if it is set, or else the networks that come with deepregions if
            there are any, or else the bundles in ./models and ./bundles.
        detector: Use only networks of this detector, such as xception, capsule or dsp-fwa.
        region: Use only networks for this region: entire, eyes, nose, mouth or rest.
        trained_on: Use only networks trained on this database, such as uadfv, ffpp or celebdf.
    """

    bundle: list[Path] | None = None
    detector: str | None = None
    region: str | None = None
    trained_on: str | None = None

    def __post_init__(self) -> None:
        for path in self.bundle or ():
            if not str(path).startswith("hf:") and not path.exists():
                raise UsageError(f"{path}: no such bundle", "--bundle names a bundle's folder")

    @property
    def named(self) -> bool:
        """Whether any networks are chosen; otherwise they are the default ones."""
        return any((self.bundle, self.detector, self.region, self.trained_on))

    def load(self) -> Bundle:
        """Loads the chosen networks as one bundle, or raises what is wrong with the choice.

        Raises:
            UsageError: There are none, a name is unknown, or they were exported.
            BundleError: A bundle cannot be loaded.
        """
        loaded = self._load(as_graph=False)
        if isinstance(loaded, Path):
            raise UsageError(
                f"{loaded} was exported", "give the folder of the bundle that it was made of"
            )
        return loaded

    def load_for(self, scoring: ScoringOptions) -> Bundle | Path:
        """Loads the chosen networks, or returns what was exported and is to score."""
        from deepregions.deploy.bundle_graph import takes_graph

        how = scoring.runtime, scoring.device, scoring.precision
        return self._load(as_graph=takes_graph(*how))

    def _load(self, *, as_graph: bool) -> Bundle | Path:
        from deepregions.pipeline.build import load_networks

        named = {"detector": self.detector, "region": self.region, "database": self.trained_on}
        return load_networks(self.bundle, **named, as_graph=as_graph)

    def folder(self) -> Path:
        """Returns the folder of the one bundle that is named, whole, or of the default one.

        Raises:
            UsageError: It is not one, or some of its networks are chosen.
        """
        from deepregions.weights.bundle_folder import implied_bundle

        named = [implied_bundle()] if self.bundle is None else self.bundle
        folder = named[0] if len(named) == 1 else None
        if folder is None or not (folder / "bundle.json").is_file():
            raise UsageError("this is for one bundle", "--bundle names its folder")
        if self.detector or self.region or self.trained_on:
            raise UsageError("this is for a bundle as a whole", "leave the choice of networks out")
        return folder

    def load_each(self) -> dict[str, Bundle]:
        """Loads the chosen networks bundle by bundle; raises what :meth:`load` raises."""
        from deepregions.weights.selection import Choice, choose_bundles

        named = {"detector": self.detector, "region": self.region, "database": self.trained_on}
        return choose_bundles(Choice.named(**named), self.bundle)

    def canvas(self, segmented: bool) -> Region | None:
        """Returns the region that the inputs show, or None where they show whole pictures.

        Raises:
            UsageError: The inputs are canvases of a region that was not named.
        """
        if not segmented:
            return None
        from deepregions.weights.convert.profiles import region_of

        if self.region is None:
            raise UsageError("--segmented needs to know the region", "such as --region eyes")
        return region_of(self.region)


@dataclass(frozen=True)
class SamplingOptions(OptionGroup):
    """Frames of videos.

    Attributes:
        frames: Number of frames to look at in each video, evenly spaced.
        rate: Look at this many frames per second instead.
        adaptive: Look at half of --frames evenly spaced, and at the others where scores disagree.
    """

    frames: int = 32
    rate: float | None = None
    adaptive: bool = False

    def sampling(self) -> Sampling:
        """Returns which frames are looked at.

        Raises:
            UsageError: A number makes no sense, or two ways are named.
        """
        from deepregions.commands.checks import exclude, positive
        from deepregions.media import Sampling

        positive(frames=self.frames)
        exclude("give one of them", rate=self.rate is not None, adaptive=self.adaptive)
        if self.rate is not None:
            return Sampling("rate", rate=self.rate)
        return Sampling("adaptive" if self.adaptive else "count", count=self.frames)


@dataclass(frozen=True)
class ScoringOptions(OptionGroup):
    """Scoring.

    Attributes:
        max_false_alarms: Say which results are at or above the bundle's threshold for at most this
            share of false alarms, such as 0.01 for 1 % of genuine faces. Only thresholds that are
            stored in the bundle can be chosen.
        landmarks: Landmark backend: auto, dlib, dlib-hog, face_alignment, or openface:PATH for
            CSV files of OpenFace 2.
        device: auto, cpu, cuda or cuda:N.
        batch_size: Number of faces scored at once.
        runtime: What runs the networks: torch; onnxruntime or openvino, on the CPU (the first run
            exports the networks, which takes minutes, unless the bundle has a graph); auto picks
            the fastest. By default onnxruntime for a bundle with a graph, such as the one that
            comes with deepregions, where there is no GPU; otherwise torch.
        precision: Number format of the networks. bf16 is for openvino on CPUs that support it; it
            changes scores a little (`deepregions export --precision bf16 --store DIR` measures
            how much).
    """

    max_false_alarms: float | None = None
    landmarks: str = "auto"
    device: str = "auto"
    batch_size: int = 16
    runtime: Literal["torch", "onnxruntime", "openvino", "auto"] | None = None
    precision: Literal["fp32", "bf16"] = "fp32"

    def analyser(self, members: Bundle | Path, *, canvases: bool = False, **how: Any) -> Analyser:
        """Loads what it takes to score; with ``canvases``, inputs are region canvases."""
        from deepregions.pipeline.build import build_analyser

        chosen = asdict(self) | ({"landmarks": None} if canvases else {})
        return build_analyser(members, command=("deepregions", *sys.argv[1:]), **chosen, **how)


def check_there(*paths: Path | None) -> None:
    """Checks that files or folders are there, before anything that takes seconds to import."""
    for path in paths:
        if path is not None and not _exists(path):
            raise UsageError(f"{path}: no such file or folder", "check the path")


def check_stores(*paths: Path | None) -> None:
    """Checks that face stores are there, before anything that takes seconds to import."""
    for path in paths:
        if path is not None and not _exists(path):
            raise StoreError(f"there is no store at {path}", "make one with: deepregions prepare")


def photographs(inputs: Sequence[Path], command: str) -> list[Path]:
    """Returns the photographs that inputs stand for; a command needs some."""
    from deepregions.media import find_media, is_video

    files = [path for path in find_media(inputs) if not is_video(path)]
    if not files:
        raise UsageError("there are no images among the inputs", f"{command} takes photographs")
    return files


def checked_path(text: str) -> Path:
    """Returns a path; standard input, web addresses, patterns that match nothing are refused.

    Raises:
        UsageError: It is standard input, a web address, or a pattern that matches nothing.
    """
    if text == "-":
        raise UsageError(
            "-: standard input and output are not supported", "give the path of a file or folder"
        )
    scheme, separator, _ = text.partition("://")
    if separator and scheme.isalnum() and scheme != "hf":
        raise UsageError(
            f"{text}: web addresses are not supported", "download the file and give its path"
        )
    path = Path(text)
    if any(character in text for character in "*?[") and not _exists(path):
        raise UsageError(
            f"{text}: no file matches this pattern", "give files or folders that are there"
        )
    return path


def inputs_first(argv: list[str]) -> list[str]:
    """Moves inputs that follow ``--bundle BUNDLE`` to the front of a command line.

    ``--bundle`` takes one value or more. The first is a bundle; of the others, those are that are
    bundles, folders of bundles or exported files, and from the first that is not, they are inputs.
    """
    inputs: list[str] = []
    others: list[str] = []
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        others.append(word)
        if word == "--":
            break
        if word == "--bundle" and rest:
            others.append(rest.pop(0))
        if word == "--bundle" or word.startswith("--bundle="):
            while rest and not rest[0].startswith("-") and _holds_bundles(rest[0]):
                others.append(rest.pop(0))
            while rest and not rest[0].startswith("-"):
                inputs.append(rest.pop(0))
    return [*inputs, *others, *rest]


def _holds_bundles(text: str) -> bool:
    if text.startswith("hf:"):
        return True
    path = Path(text)
    if path.suffix.lower() == ".onnx":
        return True
    return _exists(path) and any(
        next(path.glob("*/" * depth + "bundle.json"), None) for depth in range(_DEPTH + 1)
    )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
