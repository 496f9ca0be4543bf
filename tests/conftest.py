"""Fixtures that every test shares."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Machines differ in speed: a slow example is not a failure. Speed is measured in benchmarks/.
settings.register_profile("deepregions", deadline=None)
settings.load_profile("deepregions")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The real data beside the checkout; tests that need it skip where it is not."""
    path = Path(os.environ.get("DEEPREGIONS_SHARED", Path(__file__).parents[2] / "shared"))
    if not path.is_dir():
        pytest.skip("the shared data (real photographs and videos) is not beside this checkout")
    return path
