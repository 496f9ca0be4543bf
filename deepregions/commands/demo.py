"""``deepregions demo``: the main job on a portrait, a forged copy, and a clip made of both."""

from __future__ import annotations

import json
import logging
import shlex
import shutil
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from deepregions.commands.cli import dispatch
from deepregions.errors import UsageError, require

if TYPE_CHECKING:
    from PIL import Image

_LANDMARKS = "--landmarks=dlib-hog"  # its model comes with a package: nothing is fetched
_RATE = 12  # frames per second of the clip

# Found by experiment: what learns most in some minutes on two cores. The cheapest network takes
# all five regions: VGG is frozen, so that only Capsule's small parts are trained.
_ALL = (
    "--data.batch_size=16",
    "--data.workers=0",
    "--trainer.precision=bf16-mixed",
    "--trainer.logger=false",
    "--trainer.enable_model_summary=false",
    "--model.optimizer=Adam",
)
_RECIPES = {
    "Capsule": "--model.size=80 --model.optimizer.lr=5e-3 --trainer.max_epochs=6",
    "Xception": "--model.size=64 --model.bn_momentum=0.1 --model.optimizer.lr=1e-3 "
    "--trainer.max_epochs=3",
    "DSPFWA": "--model.size=96 --model.pyramid=adaptive --model.optimizer.lr=5e-5 "
    "--trainer.max_epochs=3",
}
_NETWORKS = (
    *(("Capsule", region) for region in ("entire", "eyes", "nose", "mouth", "rest")),
    ("DSPFWA", "entire"),
    ("Xception", "entire"),
)
_SMALL = ("eyes", "nose", "mouth")  # on the whole face's canvas, little of them is left at 80 px

_CAVEAT = """\
These networks are toys: each was trained for a minute or less, from nothing.
They show how the parts work together, not what such networks can do. Train on real data
before you believe a score: README.md says how.
"""


def demo(*, out: Path = Path("demo-output"), train: Path | None = None, seed: int = 0) -> None:
    """Scores a portrait, a forged copy of it, and a short clip made of both.

    Prints each command line as you would type it, and fetches nothing. The networks are those
    that come with deepregions; with --train, toys that are trained first, in about four minutes
    on two cores.

    Args:
        out: The folder to write to; what an earlier demo left there is replaced.
        train: Train on this face store instead of using the networks that come with deepregions.
        seed: Random seed of the forgery.
    """
    from deepregions.weights.bundle_folder import default_bundle

    marker = out / "demo.json"
    if out.exists() and any(out.iterdir()) and not marker.is_file():
        raise UsageError(f"{out} is there and is not a demo's", "name another folder with --out")
    default = default_bundle()
    if train is None and default is None:
        raise UsageError(
            "no networks come with this installation", "train toys: deepregions demo --train STORE"
        )
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    marker.write_text(json.dumps({"seed": seed}) + "\n")
    begun = time.monotonic()
    inputs = _inputs(out, seed)
    bundles = [str(default)] if train is None else _trained(train, out)
    report = out / "report"
    _run("detect", *inputs, "--bundle", *bundles, _LANDMARKS, f"--out={report}")
    sys.stdout.write(f"The demo took {time.monotonic() - begun:.0f} s.\n")
    if train is not None:
        sys.stdout.write(f"\n{_CAVEAT}")


def _trained(store: Path, out: Path) -> list[str]:
    bundles = []
    for name, region in _NETWORKS:
        title = f"{name.lower()}_{region}"
        bundles.append(str(out / "bundles" / title))
        words = [f"--data.store={store}", f"--data.region={region}", f"--bundle={bundles[-1]}"]
        words += ["--data.layout=tight"] if region in _SMALL else []
        words += [f"--model={name}", *_ALL, *_RECIPES[name].split()]
        with _quiet():
            _run("fit", *words, f"--trainer.default_root_dir={out / 'training' / title}")
    return bundles


def _run(*argv: str) -> None:
    sys.stdout.write(f"\n$ deepregions {shlex.join(argv)}\n")
    sys.stdout.flush()
    dispatch(argv)


@contextmanager
def _quiet() -> Iterator[None]:
    logger = logging.getLogger("pytorch_lightning")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logger.setLevel(level)


def _inputs(out: Path, seed: int) -> tuple[str, str, str]:
    """Writes the portrait of Eileen Collins (NASA, public domain), a forged copy, and a clip."""
    from PIL import Image

    original = portrait()
    paths = (str(out / "portrait.png"), str(out / "forged.png"), str(out / "clip.mp4"))
    original.save(paths[0])
    made = out / "forgery"
    _run("forge", paths[0], "--method=fwa", f"--out={made}", f"--seed={seed}", _LANDMARKS)
    shutil.copy(made / "portrait" / "forged.png", paths[1])
    write_clip(Path(paths[2]), [original, Image.open(paths[1]).convert("RGB")])
    return paths


def portrait() -> Image.Image:
    """Returns a portrait of Eileen Collins (NASA, public domain), 512 x 512 pixels.

    Raises:
        MissingExtraError: It is not there.
    """
    from PIL import Image

    return Image.fromarray(require("skimage.data", "demo").astronaut())


def write_clip(path: Path, pictures: Sequence[Image.Image]) -> None:
    """Writes a video that shows each picture for a second."""
    import av
    import numpy as np

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=_RATE)
        stream.width, stream.height = pictures[0].size
        stream.pix_fmt = "yuv420p"
        for picture in pictures:
            for _ in range(_RATE):
                pixels = np.asarray(picture)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
