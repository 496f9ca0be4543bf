"""Tables of scores: what is written is read, and other tools read it too."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepregions.errors import UnreadableError, UsageError
from deepregions.fusion.score_table import (
    Origin,
    ScoreTable,
    joined,
    judged,
    make_table,
    read_origin,
)
from deepregions.types import Region

REGIONS = (Region.ENTIRE, Region.EYES)
ORIGIN = Origin("toy", "abc", {"xception_entire.toy": "12"}, {"gates": {"size": 3}})


def table(count: int = 6, seed: int = 0) -> ScoreTable:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(count, 2, 2))
    logits[rng.uniform(size=logits.shape) < 0.3] = np.nan
    return make_table(
        ORIGIN,
        ("xception", "capsule"),
        REGIONS,
        (
            {
                "key": f"k{n}",
                "video": f"v{n // 2}",
                "track": n,
                "identities": ("a", "b")[: 1 + n % 2],
                "label": n % 2,
                "method": "swap" if n % 2 else "original",
                "compression": "c23",
                "split": ("train", "val", "test")[n % 3],
                "status": "ok" if n else "too_small",
                "log_odds": logits[n],
            }
            for n in range(count)
        ),
    )


def assert_equal(one: ScoreTable, two: ScoreTable) -> None:
    assert (one.origin, one.detectors, one.regions) == (two.origin, two.detectors, two.regions)
    for name in ("key", "video", "track", "identities", "label", "method", "split", "status"):
        assert list(getattr(one, name)) == list(getattr(two, name)), name
    np.testing.assert_allclose(one.log_odds, two.log_odds, rtol=1e-6)


@given(st.integers(0, 9), st.integers(0, 99))
def test_what_is_written_is_read(tmp_path_factory: Any, count: int, seed: int) -> None:
    path = tmp_path_factory.mktemp("scores") / "s.parquet"
    before = table(count, seed)
    before.write(path)
    assert_equal(ScoreTable.read(path), before)
    assert read_origin(path) == ORIGIN


def test_any_tool_reads_one_row_per_face_detector_and_region(tmp_path: Path) -> None:
    scores = table()
    scores.write(tmp_path / "s.parquet")
    rows = pq.read_table(tmp_path / "s.parquet").to_pylist()
    assert len(rows) == 6 * 4
    for number, row in enumerate(rows):
        n, d, r = number // 4, number // 2 % 2, number % 2
        assert (row["key"], row["detector"]) == (f"k{n}", scores.detectors[d])
        assert row["region"] == REGIONS[r]
        if scores.valid[n, d, r]:
            assert row["valid"]
            assert row["log_odds"] == pytest.approx(scores.log_odds[n, d, r])
            assert row["score"] == pytest.approx(1 / (1 + np.exp(-scores.log_odds[n, d, r])))
        else:
            assert (row["valid"], row["log_odds"], row["score"]) == (False, None, None)


def test_parts_and_joins() -> None:
    scores = table(9)
    parts = [scores.part(split) for split in ("train", "val", "test")]
    assert [len(part) for part in parts] == [3, 3, 3]
    assert set(joined(parts).key) == set(scores.key)
    assert judged(scores.status).sum() == 8
    with pytest.raises(UsageError, match="different networks"):
        joined([scores, replace(scores, detectors=("a", "b"))])
    with pytest.raises(UsageError, match="no scores"):
        joined([])


def test_cells_are_where_networks_are() -> None:
    scores = replace(table(), log_odds=np.full((6, 2, 2), np.nan))
    assert scores.cells == ((0, 0),)  # named by the origin, though it never answered
    logits = scores.log_odds.copy()
    logits[3, 1, 1] = 2.0
    assert replace(scores, log_odds=logits).cells == ((0, 0), (1, 1))


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    scores = table()
    with pytest.raises(UsageError, match="infinite"):
        replace(scores, log_odds=np.full((6, 2, 2), np.inf))
    with pytest.raises(UsageError, match="lengths"):
        replace(scores, key=scores.key[:3])
    for name, content in (("empty", b""), ("text", b"hello"), ("magic", b"PAR1" * 40)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UnreadableError, match=name):
            ScoreTable.read(tmp_path / name)
        with pytest.raises(UnreadableError, match=name):
            read_origin(tmp_path / name)
    with pytest.raises(UnreadableError, match="not there"):
        ScoreTable.read(tmp_path / "none")


def test_a_file_of_another_version_is_refused(tmp_path: Path) -> None:
    table().write(tmp_path / "s.parquet")
    old = pq.read_table(tmp_path / "s.parquet")
    changed = old.schema.metadata[b"deepregions.scores"].replace(b'"version": 1', b'"version": 2')
    pq.write_table(old.replace_schema_metadata({"deepregions.scores": changed}), tmp_path / "t")
    with pytest.raises(UnreadableError, match="version"):
        ScoreTable.read(tmp_path / "t")


def test_cells_are_those_of_networks_also_where_a_detector_has_several_databases() -> None:
    scores = table()
    models = {"xception_entire.toy": "1", "xception_eyes.dfdc": "2", "capsule_eyes.x.y": "3"}
    silent = replace(
        scores,
        origin=replace(scores.origin, models=models),
        detectors=("xception.toy", "capsule"),
        log_odds=np.full_like(scores.log_odds, np.nan),
    )
    assert silent.cells == ((0, 0), (1, 1))
    assert replace(silent, detectors=("xception.dfdc", "capsule.x.y")).cells == ((0, 1), (1, 1))
