"""``deepregions demo``: the whole main job in minutes, with toy networks on drawn faces."""

from __future__ import annotations

import json
import logging
import shlex
import shutil
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FACES = 800
_LANDMARKS = "dlib-hog"  # its model comes with a package: nothing is fetched
_FORGERY = 1  # the seed of the portrait's manipulation

# Found by experiment: what learns most in some minutes on two cores. The cheapest network takes
# all five regions: VGG is frozen, so that only Capsule's small parts are trained.
_ALL = (
    "--data.batch_size=16",
    "--data.workers=0",
    "--trainer.precision=bf16-mixed",
    "--trainer.logger=false",
    "--trainer.enable_model_summary=false",
)
_ADAM = "--model.optimizer=Adam"
_RECIPES = {
    "Capsule": ("--model.size=80", _ADAM, "--model.optimizer.lr=5e-3", "--trainer.max_epochs=6"),
    "Xception": (
        "--model.size=64",
        "--model.bn_momentum=0.1",
        _ADAM,
        "--model.optimizer.lr=1e-3",
        "--trainer.max_epochs=3",
    ),
    "DSPFWA": (
        "--model.size=96",
        "--model.pyramid=adaptive",
        _ADAM,
        "--model.optimizer.lr=5e-5",
        "--trainer.max_epochs=3",
    ),
}
_NETWORKS = (
    ("Capsule", "entire"),
    ("Capsule", "eyes"),
    ("Capsule", "nose"),
    ("Capsule", "mouth"),
    ("Capsule", "rest"),
    ("DSPFWA", "entire"),
    ("Xception", "entire"),
)

_SMALL = ("eyes", "nose", "mouth")  # on the whole face's canvas, little of them is left at 80 px

_CAVEAT = """\
These networks are toys: each was trained for a minute or less, from nothing, on drawn faces.
They show how the parts work together, not what such networks can do. Train on real data
before you believe a score: README.md says how.
"""


def demo(*, out: Path = Path("demo-output"), seed: int = 0) -> int:
    """Trains toy networks on drawn faces, then scores a portrait and a manipulated copy of it.

    Runs prepare, fit and detect as you would, and prints each command line. Takes about four
    minutes on two cores, and fetches nothing.

    Args:
        out: The folder to write to; what an earlier demo left there is replaced.
        seed: Another seed draws other faces.
    """
    from deepregions.errors import UsageError

    marker = out / "demo.json"
    if out.exists() and any(out.iterdir()) and not marker.is_file():
        raise UsageError(f"{out} is there and is not a demo's", "name another folder with --out")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    marker.write_text(json.dumps({"seed": seed}) + "\n")
    begun = time.monotonic()
    portraits = _portraits(out)
    store = out / "store"
    _run("prepare", "--database=toy", f"--out={store}", f"--count={_FACES}", f"--seed={seed}")
    bundles = [out / "bundles" / f"{name.lower()}_{region}" for name, region in _NETWORKS]
    with _quiet():
        for (name, region), bundle in zip(_NETWORKS, bundles, strict=True):
            _train(name, region, store, bundle, out)
    report = out / "report"
    shown = [f"--landmarks={_LANDMARKS}", f"--out={report}"]
    _run("detect", *map(str, portraits), "--bundle", *map(str, bundles), *shown)
    sys.stdout.write(
        f"The pictures are in {report}. It took {time.monotonic() - begun:.0f} s.\n\n{_CAVEAT}"
    )
    return 0


def _train(name: str, region: str, store: Path, bundle: Path, out: Path) -> None:
    runs = out / "training" / f"{name.lower()}_{region}"
    where = [f"--data.store={store}", f"--data.region={region}", f"--bundle={bundle}"]
    if region in _SMALL:
        where.append("--data.layout=tight")
    _run(
        "fit",
        *where,
        f"--model={name}",
        *_RECIPES[name],
        *_ALL,
        f"--trainer.default_root_dir={runs}",
    )


def _run(*argv: str) -> None:
    """Runs a command as if it had been typed, after printing it."""
    from deepregions.commands.cli import dispatch

    sys.stdout.write(f"\n$ deepregions {shlex.join(argv)}\n")
    sys.stdout.flush()
    dispatch(argv)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Lightning's remarks about devices and settings to itself."""
    logger = logging.getLogger("pytorch_lightning")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logger.setLevel(level)


def _portraits(out: Path) -> tuple[Path, Path]:
    """Writes the portrait of Eileen Collins (NASA, public domain) and a manipulated copy."""
    import numpy as np
    import torch
    from PIL import Image

    from deepregions.data.toy import forge
    from deepregions.errors import require
    from deepregions.faces.backends import landmark_detector

    portrait = require("skimage.data", "demo").astronaut()
    frames = torch.from_numpy(portrait.copy()).permute(2, 0, 1)[None]
    face = landmark_detector(_LANDMARKS, "cpu")(frames)[0][0]
    fake, _ = forge(portrait, face.landmarks.numpy(), np.random.default_rng(_FORGERY))
    paths = (out / "portrait.png", out / "manipulated.png")
    for path, pixels in zip(paths, (portrait, fake), strict=True):
        Image.fromarray(pixels).save(path)
    return paths
