"""Fixtures that every test shares, and which tests are slow."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from PIL import Image

# Machines differ in speed: a slow example is not a failure. Speed is measured in benchmarks/.
settings.register_profile("deepregions", deadline=None)
settings.load_profile("deepregions")

# Files whose tests train networks, start processes, or go through whole commands. `make check`
# leaves them out, as it does single tests that are marked slow.
SLOW = {
    "adapters",
    "analyser",
    "annotation",
    "answer",
    "archive_clouds",
    "archive_remote",
    "archive_scoring",
    "archive_summary",
    "backbone",
    "benchmark",
    "benchmark_command",
    "bundle",
    "bundle_graph",
    "card",
    "cli",
    "default_bundle",
    "degradation",
    "demo",
    "detect",
    "detectors",
    "doctor",
    "evaluate",
    "evaluation_figures",
    "evaluation_page",
    "explain",
    "export",
    "exported",
    "finetuning",
    "fit",
    "forge",
    "forge_command",
    "forge_shortcuts",
    "freed_memory",
    "fused_bundle",
    "fusing",
    "fuzz",
    "golden",
    "heat",
    "hub",
    "importing",
    "keras",
    "landmarks",
    "media_hostile",
    "media_reader",
    "memory",
    "models_command",
    "network",
    "pairing",
    "precision",
    "prepare",
    "prepare_databases",
    "prepare_failures",
    "provenance",
    "python",
    "quality",
    "quantity",
    "reproduction",
    "runtimes",
    "schema",
    "scoring_stores",
    "selection",
    "service",
    "service_docs",
    "shots",
    "stages",
    "streams",
    "traps",
    "web",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests of slow files, which come first: quick ones fill what is left at the end."""

    def is_slow(item: pytest.Item) -> bool:
        return item.path.stem.removeprefix("test_") in SLOW

    items.sort(key=is_slow, reverse=True)
    for item in filter(is_slow, items):
        item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The real data beside the checkout; tests that need it skip where it is not."""
    path = Path(os.environ.get("DEEPREGIONS_SHARED", Path(__file__).parents[2] / "shared"))
    if not path.is_dir():
        pytest.skip("the shared data (real photographs and videos) is not beside this checkout")
    return path


@pytest.fixture(scope="session")
def detector(shared: Path) -> Any:
    """dlib's landmarks, faces by YuNet from the shared weights."""
    from deepregions.faces.backends.dlib68 import DlibLandmarks
    from deepregions.faces.finders import YuNetFinder

    return DlibLandmarks(YuNetFinder(shared / "weights/yunet_n_640_640.onnx"))


@pytest.fixture(scope="session")
def hog() -> Any:
    """dlib's landmarks and faces."""
    from deepregions.faces.backends.dlib68 import DlibLandmarks
    from deepregions.faces.finders import HogFinder

    return DlibLandmarks(HogFinder())


@pytest.fixture(scope="session")
def photographs(shared: Path) -> list[Path]:
    """The 702 photographs on which docs/faces.md has its figures."""
    folders = (shared / "faces/ffhq", shared / "faces/london")
    return [path for folder in folders for path in sorted(folder.rglob("*.jpg"))]


@pytest.fixture(scope="session")
def portrait(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photograph of a face that dlib's HOG finds (public domain), made small."""
    data = pytest.importorskip("skimage.data", reason="the portrait is in scikit-image's wheel")
    path = tmp_path_factory.mktemp("photos") / "portrait.png"
    Image.fromarray(data.astronaut()[:300, 80:380]).save(path)
    return path
