from pathlib import Path

import pytest
from detect_json import read_detect
from drawn_faces import write_drawn_store

from deepregions.commands import demo
from deepregions.commands.cli import run

pytest.importorskip("skimage", reason="the demo's portrait is in scikit-image's wheel")


def test_demo_trains_on_a_store_and_scores_with_toys(tmp_path, monkeypatch, capsys):
    """The demo itself, with fewer faces, networks and epochs."""
    monkeypatch.setattr(demo, "_NETWORKS", demo._NETWORKS[:2])
    shortened = {name: f"{recipe} --trainer.max_epochs=1" for name, recipe in demo._RECIPES.items()}
    monkeypatch.setattr(demo, "_RECIPES", shortened)
    write_drawn_store(tmp_path / "drawn", count=24)
    out = tmp_path / "demo"
    assert run(["demo", "--out", str(out), "--train", str(tmp_path / "drawn")]) == 0
    printed = capsys.readouterr().out
    assert "toys" in printed
    assert printed.count("$ deepregions fit") == 2
    check(out)


def test_demo_scores_with_the_networks_that_come_along(tmp_path):
    assert run(["demo", "--out", str(tmp_path / "demo")]) == 0
    check(tmp_path / "demo")


def test_without_networks_the_demo_says_how_to_train_toys(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("deepregions.weights.bundle_folder.default_bundle", lambda: None)
    assert run(["demo", "--out", str(tmp_path / "demo")]) == 2
    assert "--train STORE" in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()


def check(out: Path) -> None:
    lines = (out / "report" / "results.jsonl").read_text().splitlines()
    results = [read_detect(line) for line in lines]
    assert [Path(each["input"]).name for each in results] == [
        "portrait.png",
        "forged.png",
        "clip.mp4",
    ]
    assert [each["status"] for each in results] == ["ok"] * 3
    assert (out / "report" / "index.html").is_file()
