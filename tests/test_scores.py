"""Tables of scores: what is written is read, and other tools read it too."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from score_tables import make_table, rows_of

from deepregions.errors import UnreadableError, UsageError
from deepregions.fusion.score_table import SCHEMA, Origin, ScoreTable, judged
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
def test_what_is_written_is_read(tmp_path_factory, count, seed):
    path = tmp_path_factory.mktemp("scores") / "s.parquet"
    before = table(count, seed)
    before.write(path)
    assert_equal(ScoreTable.read(path), before)


def test_any_tool_reads_one_row_per_face_detector_and_region(tmp_path):
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


def test_parts():
    scores = table(9)
    parts = [scores.part(split) for split in ("train", "val", "test")]
    assert [len(part) for part in parts] == [3, 3, 3]
    assert judged(scores.status).sum() == 8


def test_what_cannot_be_is_refused(tmp_path):
    scores = table()
    with pytest.raises(UsageError, match="infinite"):
        replace(scores, log_odds=np.full((6, 2, 2), np.inf))
    with pytest.raises(UsageError, match="lengths"):
        replace(scores, key=scores.key[:3])
    for name, content in (("empty", b""), ("text", b"hello"), ("magic", b"PAR1" * 40)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UnreadableError, match=name):
            ScoreTable.read(tmp_path / name)
    with pytest.raises(UnreadableError, match="no file"):
        ScoreTable.read(tmp_path / "none")


def test_a_file_of_another_version_is_refused(tmp_path):
    table().write(tmp_path / "s.parquet")
    old = pq.read_table(tmp_path / "s.parquet")
    changed = old.schema.metadata[b"deepregions.scores"].replace(b'"version": 1', b'"version": 2')
    pq.write_table(old.replace_schema_metadata({"deepregions.scores": changed}), tmp_path / "t")
    with pytest.raises(UnreadableError, match="version"):
        ScoreTable.read(tmp_path / "t")


def test_a_file_that_does_not_say_who_its_rows_are_is_refused(tmp_path):
    """As those of earlier programs."""
    table().write(tmp_path / "s.parquet")
    old = pq.read_table(tmp_path / "s.parquet")
    about = json.loads(old.schema.metadata[SCHEMA.encode()])
    del about["rows"]
    changed = old.replace_schema_metadata({SCHEMA: json.dumps(about)})
    pq.write_table(changed, tmp_path / "t.parquet")
    with pytest.raises(UnreadableError, match=r"rows.*score the store again"):
        ScoreTable.read(tmp_path / "t.parquet")


def test_cells_are_those_of_networks_also_where_a_detector_has_several_databases():
    scores = table()
    models = {"xception_entire.toy": "1", "xception_eyes.dfdc": "2", "capsule_eyes.x.y": "3"}
    silent = replace(
        scores,
        origin=replace(scores.origin, models=models),
        detectors=("xception.toy", "capsule"),
        rows=rows_of(("xception.toy", "capsule"), models),
        log_odds=np.full_like(scores.log_odds, np.nan),
    )
    assert silent.cells == ((0, 0), (1, 1))
    names = ("xception.dfdc", "capsule.x.y")
    other = replace(silent, detectors=names, rows=rows_of(names, models))
    assert other.cells == ((0, 1), (1, 1))


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("label", 7),
        ("track", -1),
        ("log_odds", 1e9),
        ("status", "fine"),
        ("video", "x" * 5000),
        ("detector", "other"),
    ],
)
def test_what_is_out_of_range_is_refused(column, value, tmp_path):
    table(4).write(tmp_path / "t.parquet")
    good = pq.read_table(tmp_path / "t.parquet")
    kind = good.schema.field(column).type
    wrong = pa.array([value] * good.num_rows, kind)
    bad = good.set_column(good.column_names.index(column), good.schema.field(column), wrong)
    pq.write_table(bad, tmp_path / "t.parquet")
    with pytest.raises(UnreadableError, match=f"column {column}|status|log-odds of"):
        ScoreTable.read(tmp_path / "t.parquet")
