"""The face store: what goes in comes out, a row at a time, and broken ones are told."""

import json
import pickle
import shutil
from dataclasses import asdict, replace
from io import BytesIO
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pytest
import torch
from data_helpers import INFO, record, small_store
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from deepregions.data.store import (
    FaceRecord,
    FaceStore,
    create_store,
    decode_image,
    encode_image,
    finish_store,
    read_shard,
    shard_name,
    write_shard,
)
from deepregions.errors import StoreError

text = st.text(st.characters(codec="utf-8"), max_size=12)
records = st.builds(
    FaceRecord,
    image=st.binary(min_size=1, max_size=50),
    landmarks=st.integers(0, 2**32 - 1).map(
        lambda seed: np.random.default_rng(seed).normal(0, 300, (68, 2)).astype(np.float32)
    ),
    key=text,
    video=text,
    label=st.sampled_from([0, 1]),
    split=st.sampled_from(["train", "val", "test"]),
    frame=st.integers(0, 2**31 - 1),
    time=st.floats(0, 1e6),
    track=st.integers(0, 2**31 - 1),
    method=text,
    compression=text,
    identities=st.lists(text, max_size=3).map(tuple),
    scale=st.floats(0, 1, width=32, exclude_min=True),
    frame_size=st.tuples(st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1)),
    score=st.floats(-10, 10, width=32),
    confidence=st.none() | st.floats(0, 1, width=32),
)


def same(one: FaceRecord, two: FaceRecord) -> bool:
    left, right = asdict(one), asdict(two)
    return np.array_equal(left.pop("landmarks"), right.pop("landmarks")) and left == right


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(faces=st.lists(records, min_size=1, max_size=8))
def test_round_trip(faces: list[FaceRecord], tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "store", ignore_errors=True)
    store = create_store(tmp_path / "store", INFO, faces)
    assert store.info == INFO
    assert len(store) == len(faces)
    assert all(same(one, two) for one, two in zip(store, faces, strict=True))
    assert store.labels.tolist() == [face.label for face in faces]
    assert store.splits.tolist() == [face.split for face in faces]
    assert store.column("key").tolist() == [face.key for face in faces]
    numbers = dict(zip(store.videos.tolist(), [face.video for face in faces], strict=True))
    assert [numbers[n] for n in store.videos.tolist()] == [face.video for face in faces]
    assert len(numbers) == len({face.video for face in faces})


def test_many_shards_and_rows_from_both_ends(tmp_path: Path) -> None:
    store = create_store(tmp_path / "store", INFO, (record(i, size=8) for i in range(2100)))
    names = sorted(path.name for path in store.path.iterdir())
    assert names == ["shard-00000.arrow", "shard-00001.arrow", "shard-00002.arrow", "store.json"]
    for row in (0, 127, 128, 1023, 1024, 2099):
        assert store[row].key == f"k{row}"
        assert store[row - len(store)].key == f"k{row}"
    for row in (2100, -2101):
        with pytest.raises(IndexError):
            store[row]
    assert store.column("key").tolist() == [f"k{i}" for i in range(2100)]


def test_reads_with_plain_pyarrow(tmp_path: Path) -> None:
    store = small_store(tmp_path / "store", ["train", "val"])
    with pa.ipc.open_file(store.path / shard_name(0)) as reader:
        rows = reader.read_all().to_pylist()
    assert [row["label"] for row in rows] == [0, 1]
    assert np.array_equal(np.float32(rows[1]["landmarks"]).reshape(68, 2), store[1].landmarks)
    assert Image.open(BytesIO(rows[0]["image"])).size == (64, 64)


def test_maps_and_does_not_load(tmp_path: Path) -> None:
    create_store(tmp_path / "store", INFO, (record(i, size=256) for i in range(600)))
    before = pa.total_allocated_bytes()
    handles = psutil.Process().num_fds()
    store = FaceStore(tmp_path / "store")
    faces = [store[row] for row in range(0, 600, 50)]
    assert pa.total_allocated_bytes() - before < 100_000 < sum(len(f.image) for f in store)
    # Thousands of shards must not run into the limit of open files.
    assert psutil.Process().num_fds() == handles
    assert len(faces) == 12


def test_pickles_by_path(tmp_path: Path) -> None:
    store = small_store(tmp_path / "store", ["train"] * 20)
    assert store[3].key == "k3"
    pickled = pickle.dumps(store)
    assert len(pickled) < 300
    assert same(pickle.loads(pickled)[3], store[3])


def test_same_faces_same_bytes(tmp_path: Path) -> None:
    one = small_store(tmp_path / "one", ["train", "val", "test"])
    two = small_store(tmp_path / "two", ["train", "val", "test"])
    other = small_store(tmp_path / "other", ["train", "val", "val"])
    assert one.fingerprint == two.fingerprint != other.fingerprint
    for path in one.path.iterdir():
        assert path.read_bytes() == (two.path / path.name).read_bytes()


def test_image_bytes_keep_channels_and_detail() -> None:
    image = torch.zeros(3, 16, 24, dtype=torch.uint8)
    image[0, :, ::2] = 255  # red stripes of one pixel: chroma subsampling would smear them
    data = encode_image(image)
    back = decode_image(data)
    assert back.shape == (3, 16, 24)
    assert (back.int() - image.int()).abs().max() < 30
    pillow = np.asarray(Image.open(BytesIO(data)).convert("RGB"))
    assert np.array_equal(back.permute(1, 2, 0).numpy(), pillow)
    for broken in (b"", b"text", data[:3]):
        with pytest.raises(StoreError, match="not a JPEG"):
            decode_image(broken)


def test_missing_empty_unfinished(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no store at .*deepregions prepare"):
        FaceStore(tmp_path / "nowhere")
    with pytest.raises(StoreError, match="is not a face store"):
        FaceStore(tmp_path)
    write_shard(tmp_path / shard_name(0), [])
    with pytest.raises(StoreError, match=r"unfinished.*prepare again with the same options"):
        FaceStore(tmp_path)
    finish_store(tmp_path, INFO, [shard_name(0)])
    with pytest.raises(StoreError, match="has no faces"):
        FaceStore(tmp_path)


def test_broken_shards(tmp_path: Path) -> None:
    store = small_store(tmp_path / "store", ["train"] * 9)
    shard = store.path / shard_name(0)
    data = shard.read_bytes()
    shard.write_bytes(data[:-100])
    with pytest.raises(StoreError, match=rf"shard-00000.*truncated.*{len(data)} bytes"):
        FaceStore(store.path)
    with pytest.raises(StoreError, match="not a readable shard"):
        read_shard(shard)
    shard.write_bytes(bytes(len(data)))
    with pytest.raises(StoreError, match="not a readable shard"):
        FaceStore(store.path)[0]
    shard.unlink()
    with pytest.raises(StoreError, match=r"shard-00000\.arrow is missing"):
        FaceStore(store.path)


def test_foreign_arrow_file_is_no_shard(tmp_path: Path) -> None:
    table = pa.table({"a": [1]})
    for metadata in ({}, {"deepregions.schema": "1"}, {"deepregions.schema": "2"}):
        with pa.ipc.new_file(tmp_path / "x.arrow", table.schema.with_metadata(metadata)) as writer:
            writer.write_table(table.replace_schema_metadata(metadata))
        with pytest.raises(StoreError, match=r"has schema none|does not have the columns"):
            read_shard(tmp_path / "x.arrow")


def test_broken_manifest(tmp_path: Path) -> None:
    store = small_store(tmp_path / "store", ["train"])
    manifest = store.path / "store.json"
    good = json.loads(manifest.read_text())
    for text, message in (
        ("{", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ("[]", "is not a store's"),
        ("{}", "has schema none"),
        (json.dumps(good | {"schema": 3}), r"has schema 3; this version reads 1 and 2.*upgrade"),
        (json.dumps(good | {"info": {}}), "is not a store's"),
        (json.dumps(good | {"shards": [{}]}), "is not a store's"),
    ):
        manifest.write_text(text)
        with pytest.raises(StoreError, match=message):
            FaceStore(store.path)


def test_a_store_of_the_first_schema_has_no_confidence(tmp_path: Path) -> None:
    sure = [record(i, confidence=0.25) for i in range(3)]
    path = create_store(tmp_path / "store", INFO, sure).path
    assert FaceStore(path).column("confidence").tolist() == [0.25] * 3
    shard, manifest = path / shard_name(0), path / "store.json"
    first = read_shard(shard).drop_columns(["confidence"])
    first = first.replace_schema_metadata({"deepregions.schema": "1"})
    with pa.ipc.new_file(tmp_path / "old", first.schema) as writer:  # not in what it is read from
        writer.write_table(first)
    (tmp_path / "old").replace(shard)
    old = json.loads(manifest.read_text()) | {"schema": 1}
    old["shards"][0]["bytes"] = shard.stat().st_size
    manifest.write_text(json.dumps(old))
    store = FaceStore(path)
    assert all(
        same(face, replace(one, confidence=None)) for face, one in zip(store, sure, strict=True)
    )
    assert np.isnan(store.column("confidence")).all()


def test_create_is_whole_or_nothing(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with pytest.raises(StoreError, match="no faces"):
        create_store(path, INFO, [])

    def failing():
        yield record(0)
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        create_store(path, INFO, failing())
    assert not any(tmp_path.iterdir())
    small_store(path, ["train"])
    with pytest.raises(StoreError, match="is there already"):
        small_store(path, ["train"])


def altered(path: Path, column: str, value: object) -> FaceStore:
    """A store of three faces, as a stranger may write it: one value of the second is another."""
    store = small_store(path, ["train", "val", "test"], confidence=0.5)
    table = read_shard(shard := path / shard_name(0))
    values = table.column(column).to_pylist()
    values[1] = value
    place, field = table.schema.get_field_index(column), table.schema.field(column)
    table = table.set_column(place, field, pa.array(values, field.type))
    with pa.ipc.new_file(path.with_suffix(".new"), table.schema) as writer:
        writer.write_table(table)
    path.with_suffix(".new").replace(shard)
    finish_store(path, store.info, [shard_name(0)])
    return FaceStore(path)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("landmarks", [float("nan")] * 136),
        ("landmarks", [1e9] * 136),
        ("label", 7),
        ("split", "dev"),
        ("frame", -1),
        ("track", -1),
        ("time", float("nan")),
        ("scale", 0.0),
        ("scale", float("inf")),
        ("frame_size", [-1, 5]),
        ("score", float("nan")),
        ("confidence", 1.5),
    ],
)
def test_a_value_out_of_range_is_one_line(column: str, value: object, tmp_path: Path) -> None:
    store = altered(tmp_path / "store", column, value)
    assert store[0].key == "k0"
    with pytest.raises(StoreError, match=rf"shard-00000.*out of range.*k1.*{column}"):
        store[1]
    if column in ("label", "split"):
        with pytest.raises(StoreError, match=f"a {column} is none of"):
            store.column(column)


def test_columns_and_rows_are_those_of_a_store(tmp_path: Path) -> None:
    store = small_store(tmp_path / "store", ["train", "val"])
    table = read_shard(shard := store.path / shard_name(0))
    place = table.schema.get_field_index("video")
    invalid = pa.Array.from_buffers(
        pa.string(), 2, [None, *pa.array([b"a\xff", b"b"]).buffers()[1:]]
    )
    absent = pa.array([None, "a"])
    field = table.schema.field(place)
    for other, message in (
        (table.set_column(place, field, invalid), "not a readable shard"),
        (table.set_column(place, field, absent), "lacks values"),
        (table.slice(0, 1), "has 1 faces, not 2"),
        (table.set_column(0, "image", pa.array([1, 2])), "does not have the columns"),
    ):
        with pa.ipc.new_file(
            tmp_path / "new", other.schema.with_metadata(table.schema.metadata)
        ) as writer:
            writer.write_table(other)
        (tmp_path / "new").replace(shard)
        manifest = json.loads((store.path / "store.json").read_text())
        manifest["shards"][0]["bytes"] = shard.stat().st_size
        (store.path / "store.json").write_text(json.dumps(manifest))
        with pytest.raises(StoreError, match=message):
            FaceStore(store.path)[0]


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("info", "database", "../../escaped"),
        ("info", "database", "/tmp/escaped"),
        ("info", "database", ".."),
        ("info", "database", ""),
        ("info", "database", 7),
        ("info", "landmarks", "\x1b[2J"),
        ("info", "frames_per_video", "many"),
        ("info", "margin", float("nan")),
        ("shards", "name", "../private.arrow"),
        ("shards", "name", "/etc/passwd"),
        ("shards", "rows", -1),
        ("shards", "rows", 1.5),
        ("shards", "bytes", None),
        ("shards", "sha256", "x"),
    ],
)
def test_names_and_numbers_of_a_stranger_are_checked(
    part: str, name: str, value: object, tmp_path: Path
) -> None:
    path = small_store(tmp_path / "store", ["train", "val"]).path
    manifest = json.loads((path / "store.json").read_text())
    (manifest["info"] if part == "info" else manifest["shards"][0])[name] = value
    (path / "store.json").write_text(json.dumps(manifest))
    with pytest.raises(StoreError, match=r"store\.json"):
        FaceStore(path)


def test_a_picture_that_would_fill_the_memory_is_refused() -> None:
    small = encode_image(torch.zeros(3, 64, 64, dtype=torch.uint8))
    start = small.index(b"\xff\xc0") + 5
    huge = small[:start] + (65_000).to_bytes(2) * 2 + small[start + 4 :]
    with pytest.raises(StoreError, match=r"4,225,000,000 pixels"):
        decode_image(huge)
    buffer = BytesIO()
    Image.new("1", (20_000, 20_000)).save(buffer, "PNG")
    with pytest.raises(StoreError, match="not a JPEG"):
        decode_image(buffer.getvalue())
    with pytest.raises(StoreError, match="not a JPEG"):  # another header hides the true one
        decode_image(b"\xff\xd8\xff\x01" + small[2:])
