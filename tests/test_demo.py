from pathlib import Path

import numpy as np
import pytest
from detect_json import read_detect
from PIL import Image

from deepregions.commands import demo
from deepregions.commands.cli import run

pytest.importorskip("skimage", reason="the demo's portrait is in scikit-image's wheel")


def test_demo_goes_from_nothing_to_verdicts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The demo itself, with fewer faces, networks and epochs."""
    monkeypatch.setattr(demo, "_FACES", 24)
    monkeypatch.setattr(demo, "_NETWORKS", demo._NETWORKS[:2])
    shortened = {
        name: (*recipe, "--trainer.max_epochs=1") for name, recipe in demo._RECIPES.items()
    }
    monkeypatch.setattr(demo, "_RECIPES", shortened)
    out = tmp_path / "demo"
    assert run(["demo", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "toys" in printed
    assert printed.count("$ deepregions fit") == 2
    assert printed.count("status ok") == 2
    lines = (out / "report" / "results.jsonl").read_text().splitlines()
    assert [read_detect(line)["status"] for line in lines] == ["ok", "ok"]
    for name in ("portrait", "manipulated"):
        assert (out / "report" / f"{name}.png").stat().st_size > 20_000
    real, fake = (
        np.asarray(Image.open(out / f"{name}.png")) for name in ("portrait", "manipulated")
    )
    changed = np.abs(real.astype(int) - fake).max(2) > 2
    assert 0.02 < changed.mean() < 0.3  # the face, and nothing but the face


def test_demo_leaves_other_folders_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    assert run(["demo", "--out", str(tmp_path)]) == 2
    assert "is not a demo's" in capsys.readouterr().err
    assert (tmp_path / "thesis.tex").read_text() == "precious"
