"""``databases describe``: right counts, warnings where classes differ, a page of its own."""

import html
import io
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from data_helpers import INFO, face_points, record
from PIL import Image

from deepregions.commands.cli import run
from deepregions.data.describe import describe
from deepregions.data.store import FaceRecord, FaceStore, create_store
from deepregions.errors import printable


def photo(number: int, quality: int = 95, size: int = 64) -> bytes:
    noise = np.random.default_rng(number).normal(128, 30, (size, size, 3))
    buffer = io.BytesIO()
    Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def faces(alter: Callable[[int, int], dict[str, object]] | None = None) -> Iterable[FaceRecord]:
    """120 videos of 60 people, genuine and fake in turns, alike but for ``alter``."""
    for number in range(120):
        label, person = number % 2, number // 2
        values: dict[str, object] = {
            "image": photo(person),
            "video": f"v{number}",
            "label": label,
            "split": ("train", "train", "val", "test")[person % 4],
            "method": "blend" if label else "original",
            "compression": "c23",
            "identities": (f"p{person}", f"p{(person + 4) % 60}")[: 1 + label],
            "frame_size": (640, 480),
        }
        yield record(number, **(values | (alter(number, label) if alter else {})))


def store(path: Path, alter: Callable[[int, int], dict[str, object]] | None = None) -> FaceStore:
    return create_store(path, INFO, faces(alter))


def test_counts(tmp_path: Path) -> None:
    about = describe(store(tmp_path / "s"))
    assert [(c.names, c.faces, c.videos) for c in about.by_split] == [
        (("train", "genuine"), 30, 30),
        (("train", "fake"), 30, 30),
        (("val", "genuine"), 15, 15),
        (("val", "fake"), 15, 15),
        (("test", "genuine"), 15, 15),
        (("test", "fake"), 15, 15),
    ]
    assert [(c.names, c.faces, c.people) for c in about.by_method] == [
        (("genuine", "original", "c23"), 60, 60),
        (("fake", "blend", "c23"), 60, 60),
    ]
    assert len(about.people) == 60
    assert (about.people[0].genuine, about.people[0].fake, about.people[0].videos) == (1, 2, 3)
    assert about.more_people == 0
    assert about.warnings == ()
    assert [measure.tells for measure in about.measures] == [False] * 4
    for measure in about.measures:
        assert sum(measure.genuine) == pytest.approx(1)
        assert sum(measure.fake) == pytest.approx(1)
        assert measure.auc == pytest.approx(0.5)
    assert about.measures[0].medians[0] == pytest.approx(32, abs=0.5)  # the drawn face's width


@pytest.mark.parametrize(
    ("alter", "warning"),
    [
        (
            lambda n, label: {"image": photo(n // 2, 40)} if label else {},
            r"detail tells .* AUC of (0\.9|1\.00)",
        ),
        (lambda n, label: {"compression": "c40"} if label else {}, "compression c40: 0% .*100%"),
        (lambda n, label: {"frame_size": (1280, 720)} if label else {}, "resolution 1280 x 720"),
        (lambda n, label: {"frame_size": (1280, 720)} if label else {}, "frame height tells"),
        (
            lambda n, label: {"landmarks": face_points() * (40 if label else 30)},
            "face width tells genuine from fake videos at an AUC of 1.00",
        ),
        (lambda n, label: {"scale": 0.5} if label else {}, "face width tells"),
        (lambda n, label: {"split": "train"} if not label else {}, "val has no genuine faces"),
        (
            lambda n, label: {"label": 1 if n % 8 else 0, "identities": (f"q{n}",)},
            "train has 15 genuine and 45 fake faces",
        ),
        (lambda n, label: {"identities": (f"p{n % 3}",)}, "train shows 3 people only"),
        (lambda n, label: {"identities": ("p",)}, "train and test share 1 people: p"),
    ],
)
def test_warnings(
    alter: Callable[[int, int], dict[str, object]], warning: str, tmp_path: Path
) -> None:
    warnings = describe(store(tmp_path / "s", alter)).warnings
    assert any(re.search(warning, line) for line in warnings), warnings


def test_a_few_videos_that_differ_by_chance_are_no_warning(tmp_path: Path) -> None:
    def alter(number: int, label: int) -> dict[str, object]:
        return {"frame_size": (1280, 720)} if number == 1 else {}

    some = [face for face in faces(alter) if face.video in ("v0", "v1", "v2", "v3")]
    about = describe(create_store(tmp_path / "s", INFO, some))
    assert not any("resolution" in line or "tells" in line for line in about.warnings)


def test_one_class_only(tmp_path: Path) -> None:
    only = [face for face in faces() if face.label == 0]
    about = describe(create_store(tmp_path / "s", INFO, only))
    assert about.measures == ()
    assert "train has no fake faces" in about.warnings


def test_the_page_needs_nothing_and_runs_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "<script>alert(1)</script>&\"'\u202egpj.exe\x1b[2J"
    store(tmp_path / "s", lambda n, label: {"video": f"{evil}{n}", "method": evil} if label else {})
    assert run(["databases", "describe", str(tmp_path / "s")]) == 0
    assert capsys.readouterr().out == f"page: {tmp_path / 's.html'}\n"
    content = (tmp_path / "s.html").read_text(encoding="utf-8")
    references = re.findall(r'(?:src|href)="([^"]*)"', content)
    assert references.pop(0) == "data:,"
    assert len(references) == content.count("<img") == 48
    assert all(value.startswith("data:image/jpeg;base64,") for value in references)
    assert "<script" not in content
    assert "default-src 'none'; img-src data:" in content
    assert "://" not in content
    assert "url(" not in content
    assert printable(evil) in html.unescape(content)
    assert not {"\u202e", "\x1b"} & set(content)
    for text in ("Splits", "People", "p59", "How it was made", INFO.landmarks):
        assert text in content


def test_page_where_it_is_asked_for_and_prepares_report(tmp_path: Path) -> None:
    store(tmp_path / "s")
    report = '{"clips": 1234, "failures": [["a", "no face"]], "left_out": {"odd name": 7}}'
    (tmp_path / "s/report.json").write_text(report)
    out = tmp_path / "pages/about.html"
    assert run(["databases", "describe", str(tmp_path / "s"), "--out", str(out)]) == 0
    content = out.read_text()
    assert "1,234, of which 1 gave no face" in content
    assert "7: odd name" in content
    (tmp_path / "s/report.json").write_text('{"clips": "?"}')  # not needed, if it is broken
    assert run(["databases", "describe", str(tmp_path / "s"), "--out", str(out)]) == 0
