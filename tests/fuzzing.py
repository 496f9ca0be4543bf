"""Readers that strangers' files go through, what to start from, and what must hold of any input.

``test_fuzz.py`` tries some inputs of each; ``tools/fuzz.py`` tries as many as there is time for.
To add a reader, add a :class:`Target`.

What must hold: the reader gives a result that is as promised, or an error that is a
``DeepregionsError`` of one printable line that names the file; it ends in time and takes no more
memory than it may; it writes nothing.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

LONGEST = 1 << 18  # bytes of an input


@dataclass(frozen=True)
class Target:
    """A reader.

    Attributes:
        seeds: Makes inputs to start from, whole ones and odd ones, in an empty folder.
        load: Imports what it needs, and returns what reads a path and checks the result.
        lay_out: Writes an input into a folder, and returns the path to read.
    """

    seeds: Callable[[Path], list[bytes]]
    load: Callable[[], Callable[[Path], None]]
    lay_out: Callable[[Path, bytes], Path] = lambda folder, content: _written(
        folder / "input", content
    )


def attempt(target: Target, read: Callable[[Path], None], folder: Path, content: bytes) -> bool:
    """Reads an input; returns whether it was read, or refused.

    Raises:
        AssertionError: The refusal, the result or the folder is not as it must be.
        Exception: Whatever else the reader let through.
    """
    from deepregions.errors import DeepregionsError

    path = target.lay_out(folder, content)
    before = _listing(folder)
    try:
        read(path)
        accepted = True
    except DeepregionsError as error:
        assert str(error).isprintable(), "the error is not one line"
        assert path.name in str(error), "the error does not name the file"
        accepted = False
    assert _listing(folder) == before, "something was written"
    return accepted


def mutated(chance: random.Random, corpus: list[bytes]) -> bytes:
    """Returns one of the inputs, changed in a few places."""
    content = bytearray(chance.choice(corpus))
    for _ in range(chance.choice((0, 1, 1, 2, 4, 8, 32))):
        where = chance.randrange(len(content) + 1)
        length = chance.choice((1, 1, 2, 4, 16, 256))
        match chance.randrange(8):
            case 0:
                content[where : where + length] = chance.randbytes(length)
            case 1:
                del content[where : where + length]
            case 2:
                content[where:where] = content[where : where + length] * chance.randrange(1, 9)
            case 3:
                other = chance.choice(corpus)
                start = chance.randrange(len(other) + 1)
                content[where : where + length] = other[start : start + length]
            case 4:
                number = chance.choice((0, 1, 127, 255, 256, 32767, 65535, 2**31 - 1, 2**32 - 1))
                packed = struct.pack(chance.choice((">Q", "<Q")), number)
                size = chance.choice((1, 2, 4, 8))
                content[where : where + size] = packed[:size] if packed[0] else packed[-size:]
            case 5:
                if where < len(content):
                    content[where] ^= 1 << chance.randrange(8)
            case 6:
                content[where : where + length] = chance.choice(_WORDS)
            case 7:
                if chance.random() < 0.2:
                    del content[where:]
    return bytes(content[:LONGEST])


_TEXT = """null NaN Infinity -Infinity 1e999 -1 0 1.5 true [] {} [[ "" "\\u0000" , : ; \\ / .. %
\ufeff 99999999999999999999 -0.0 nan inf 0x10 é \U0001f600 " ' """
_BYTES = (b"\n", b"\r\n", b"\t", b"\x1b[2J", b"\0", b"\xff\xfe", b"\xff" * 8)
_DEEP = (b"[" * 2000, b'{"a":' * 2000)
_WORDS = (*(word.encode() for word in _TEXT.split()), *_BYTES, *_DEEP)


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _listing(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path): (path.stat().st_mtime_ns, path.stat().st_size)
        for path in sorted(folder.rglob("*"))
    }


# The readers


def _media_seeds(kind: str) -> Callable[[Path], list[bytes]]:
    """Of ``IMAGES`` or ``VIDEOS`` of hostile.py, all but those that take seconds each."""

    def seeds(folder: Path) -> list[bytes]:
        import hostile

        contents = []
        for case in getattr(hostile, kind):
            if not case.name.startswith(("hdr", "huge", "endless", "bomb.png")):
                case.make(path := folder / case.name)
                contents.append(path.read_bytes()[:LONGEST])
        return contents

    return seeds


def _load_media() -> Callable[[Path], None]:
    import numpy as np

    from deepregions.media.frames import Limits
    from deepregions.media.sampling import Sampling
    from deepregions.media.source import open_source

    sampling = Sampling(count=3)
    limits = Limits(pixels=4_000_000)

    def read(path: Path) -> None:
        with open_source(path, limits) as source:
            choice = source.choose(sampling)
            frames = list(source.frames(choice.numbers))
            info = source.info
        json.dumps(choice.record(sampling))
        assert 1 <= len(frames) <= 3
        assert info.frames >= 1
        assert 0 <= info.duration < float("inf")
        assert 0 <= info.rate < float("inf")
        numbers = [frame.number for frame in frames]
        assert numbers == sorted(set(numbers))
        assert all(0 <= number < info.frames for number in numbers)
        for frame in frames:
            height, width, depth = frame.image.shape
            assert depth == 3
            assert frame.image.dtype == np.uint8
            assert 0 < height * width <= limits.pixels
            assert 0 <= frame.time <= info.duration

    return read


def _provenance_seeds(_: Path) -> list[bytes]:
    from provenances import tagged, tagged_video

    whole = [tagged(kind) for kind in ("JPEG", "PNG", "WEBP", "TIFF")] + [tagged_video()]
    if find_spec("c2pa"):
        from provenances import signed, signer

        kinds = ("jpeg", "png", "webp", "tiff")
        by = signer()
        whole += [
            signed(each, f"image/{kind}", by) for each, kind in zip(whole, kinds, strict=False)
        ]
        whole += [signed(tagged("GIF"), "image/gif", by), signed(whole[4], "video/mp4", by)]
    return whole


def _load_provenance() -> Callable[[Path], None]:
    from dataclasses import asdict

    from deepregions.media.credentials import read_credentials
    from deepregions.media.frames import Limits
    from deepregions.media.origin import read_origin
    from deepregions.media.provenance import Credentials, Provenance, received

    def read(path: Path) -> None:
        with path.open("rb") as file:
            told = json.loads(json.dumps(asdict(read_origin(path, file, Limits(pixels=4_000_000)))))
            if credentials := told["credentials"]:
                credentials = json.loads(json.dumps(asdict(read_credentials(file, lambda: None))))
                credentials = received(Credentials, credentials)
        found = received(Provenance, told, credentials=credentials)
        for value in (*vars(found).values(), *(vars(credentials).values() if credentials else ())):
            for text in value if isinstance(value, tuple) else [value]:
                assert not isinstance(text, str) or (text.isprintable() and len(text) <= 300)

    return read


def _landmark_seeds(_: Path) -> list[bytes]:
    points = [[round(10 + n * 1.5, 2), 200 - n] for n in range(68)]
    face = {"points": points, "order": "iBUG-68", "image": "a.jpg"}
    whole = [face, [face, face], {"points": points}, {"points": [[1e5, -3.25]] * 68}]
    odd = [[], {}, None, 3, {"points": points[1:]}, {"points": points, "order": "dlib"}]
    return [json.dumps(content).encode() for content in (*whole, *odd)]


def _load_landmarks() -> Callable[[Path], None]:
    import numpy as np

    from deepregions.faces.landmarks import read_landmarks

    def read(path: Path) -> None:
        points = read_landmarks(path)
        assert points.dtype == np.float32
        assert points.ndim == 3
        assert points.shape[0] >= 1
        assert points.shape[1:] == (68, 2)
        assert np.isfinite(points).all()

    return read


def _openface_seeds(_: Path) -> list[bytes]:
    """Tables as OpenFace 2 writes them, of a photograph and of a video; 2.0 put spaces in them."""
    names = [f"{axis}_{n}" for axis in "xy" for n in range(68)]
    values = [f"{100 + n % 68 * 1.7:.1f}" for n in range(136)]
    photograph = [["face", "confidence", "pose_Tx", *names]]
    photograph += [[str(n), "0.98", "-2.5", *values] for n in range(2)]
    video = [["frame", "face_id", "timestamp", "confidence", "success", *names]]
    video += [[str(n), "0", f"{n / 25:.3f}", "0.93", "1", *values] for n in range(1, 4)]
    video += [["4", "0", "0.160", "0.02", "0", *["0.0"] * 136]]
    tables = [photograph, video, video[:1], [row[:40] for row in video]]
    texts = []
    for table in tables:
        csv.writer(text := io.StringIO(), lineterminator="\n").writerows(table)
        texts += [text.getvalue(), text.getvalue().replace(",", ", ").replace("\n", "\r\n")]
    return [text.encode() for text in texts]


def _load_openface() -> Callable[[Path], None]:
    import numpy as np

    from deepregions.faces.backends.openface import read_openface

    def read(path: Path) -> None:
        table = read_openface(path)
        faces = len(table.frame)
        assert table.landmarks.shape == (faces, 68, 2)
        assert np.isfinite(table.landmarks).all()
        assert ((table.confidence >= 0) & (table.confidence <= 1)).all()
        assert (np.diff(table.frame) >= 0).all()
        assert (table.frame >= 0).all()
        for face in table.faces(int(table.frame[0])) if faces else ():
            assert np.isfinite(face.landmarks).all()
            assert np.isfinite(face.box).all()

    return read


def _bundle(folder: Path, kind: Literal["isotonic", "logistic"] | None = None) -> Path:
    """Saves a network that is the same every time; with a fusion and a calibration if asked to."""
    import torch
    from networks import Tint, calibration, member

    from deepregions.fusion.rules import LogisticFusion
    from deepregions.types import Region
    from deepregions.weights.bundle import save_bundle

    torch.manual_seed(0)
    network = member(Tint(8), Region.EYES)
    if kind is None:
        save_bundle([network], folder)
        return folder
    found = calibration(1.0, 0.5, -2.5, 2.5)
    if kind == "isotonic":
        found = replace(found, kind=kind, parameters={"log_odds": [-1.0, 2.5], "llr": [-0.5, 1.5]})
    fusion = LogisticFusion([("tint", Region.EYES)])
    save_bundle([network], folder, fusion=fusion, calibration=found)
    return folder


def _load_bundle() -> Callable[[Path], None]:
    from networks import Tint

    import deepregions.detectors
    from deepregions.detectors import RegionDetector
    from deepregions.weights.bundle import load_bundle

    deepregions.detectors.Tint = Tint  # type: ignore[attr-defined]

    def read(path: Path) -> None:
        bundle = load_bundle(path)
        for member in bundle:
            assert isinstance(member.detector, RegionDetector)
            assert not member.detector.training
        bundle.system()
        if bundle.calibration is not None:
            ratio = bundle.calibration.likelihood_ratio(1.25)
            assert ratio is not None
            assert ratio.lower <= ratio.ln <= ratio.upper
            json.dumps(bundle.calibration.facts(), allow_nan=False)

    return read


def _manifest_seeds(folder: Path) -> list[bytes]:
    kinds = (None, "isotonic", "logistic")
    made = [_bundle(folder / str(kind), kind) / "bundle.json" for kind in kinds]
    whole, *fused = (path.read_bytes() for path in made)
    second = json.dumps(json.loads(whole) | {"version": 2}).encode()
    stranger = whole.replace(_WEIGHTS.encode(), b"../../etc/passwd")
    return [whole, *fused, second, stranger, b"{}", b"[]"]


_WEIGHTS = "tint_eyes.made.safetensors"


def _lay_out_manifest(folder: Path, content: bytes) -> Path:
    if not (bundle := folder / "bundle").exists():
        _bundle(bundle, "logistic")
    (bundle / "bundle.json").write_bytes(content)
    return bundle


def _lay_out_bundle(folder: Path, content: bytes) -> Path:
    """With the digest that the weights have, as whoever means harm would write it."""
    if not (bundle := folder / "bundle").exists():
        _bundle(bundle)
    (bundle / _WEIGHTS).write_bytes(content)
    manifest = json.loads((bundle / "bundle.json").read_text())
    manifest["members"][0]["sha256"] = hashlib.sha256(content).hexdigest()
    (bundle / "bundle.json").write_text(json.dumps(manifest))
    return bundle


def _small_store(folder: Path) -> Path:
    from data_helpers import small_store

    people = {"identities": ("anna", "ben"), "frame_size": (640, 480), "confidence": 0.5}
    return small_store(folder, ["train", "val", "test", "train", "val", "test"], **people).path


def _store_seeds(folder: Path) -> list[bytes]:
    whole = (_small_store(folder / "store") / "store.json").read_bytes()
    path = whole.replace(b"shard-00000", b"../shard-0")
    return [whole, path, whole.replace(b'"test"', b'"../../test"'), b"{}", b"[]"]


def _shard_seeds(folder: Path) -> list[bytes]:
    content = (_small_store(folder / "store") / "shard-00000.arrow").read_bytes()
    return [content, content[:-100]]


def _lay_out_store(folder: Path, content: bytes) -> Path:
    if not (store := folder / "store").exists():
        _small_store(store)
    (store / "store.json").write_bytes(content)
    return store


def _lay_out_shard(folder: Path, content: bytes) -> Path:
    """With the size that the shard has, as whoever means harm would write it."""
    if not (store := folder / "store").exists():
        _small_store(store)
    manifest = json.loads((store / "store.json").read_text())
    manifest["shards"][0]["bytes"] = len(content)
    (store / "shard-00000.arrow").unlink()  # the last one may still be mapped
    (store / "shard-00000.arrow").write_bytes(content)
    (store / "store.json").write_text(json.dumps(manifest))
    return store


def _load_store() -> Callable[[Path], None]:
    import numpy as np

    from deepregions.data.describe import describe
    from deepregions.data.store import FaceStore, decode_image
    from deepregions.errors import StoreError

    def read(path: Path) -> None:
        store = FaceStore(path)
        for record in store:
            assert np.isfinite(record.landmarks).all()
            assert record.label in (0, 1)
            assert 0 < record.scale < float("inf")
            try:
                assert decode_image(record.image).shape[0] == 3
            except StoreError as error:  # which does not know where the picture is from
                raise StoreError(f"{path}: {error}") from error
        assert set(store.labels.tolist()) <= {0, 1}
        assert len(store.videos) == len(store.persons) == len(store)
        assert len(store.fingerprint) == 64
        json.dumps(describe(store).warnings)

    return read


def _score_seeds(folder: Path) -> list[bytes]:
    """Tables of scores: a whole one, and those with a column or a fact that nobody writes."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from score_tables import score_table

    from deepregions.fusion.score_table import SCHEMA

    score_table(2).write(folder / "whole")
    whole = (folder / "whole").read_bytes()
    good = pq.read_table(folder / "whole")
    about = json.loads(good.schema.metadata[SCHEMA.encode()])
    odd: list[Any] = [None, -1, 2**31 - 1, 1e300, float("inf"), "x" * 5000, b"\xff", [[]], {"a": 1}]
    tables = [
        good.set_column(place, name, pa.array([value] * good.num_rows))
        for place, name in enumerate(good.column_names)
        for value in odd
    ]
    tables += [
        good.replace_schema_metadata({SCHEMA: json.dumps(about | {key: value})})
        for key in about
        for value in (*odd[:6], [[1], None], {}, {"database": 3})
    ]
    contents = []
    for table in tables:
        pq.write_table(table, stream := io.BytesIO())
        contents.append(stream.getvalue())
    return [whole] * len(contents) + contents  # half of what is tried is a whole one, changed


def _load_scores() -> Callable[[Path], None]:
    import numpy as np

    from deepregions.fusion.score_table import ScoreTable

    def read(path: Path) -> None:
        table = ScoreTable.read(path)
        assert set(table.label.tolist()) <= {0, 1}
        assert not np.isinf(table.log_odds).any()
        assert (table.track >= 0).all()
        assert len(table.systems) <= len(table.detectors) * len(table.regions)

    return read


def _checkpoint_seeds(_: Path) -> list[bytes]:
    """Torch files of both formats: state dicts, options beside one, a network; and two refused."""
    import argparse
    import pickle

    import torch
    from foreign import posing
    from torch import nn

    network = nn.Sequential(nn.Linear(2, 1), nn.BatchNorm1d(1))
    state = network.state_dict()
    training = {"args": argparse.Namespace(lr=0.1), "state_dict": state, "epoch": 3}

    class TransferModel(nn.Module):
        """A network of a known name."""

    TransferModel.__qualname__ = "TransferModel"
    foreign = TransferModel()
    foreign.model = network
    contents = [pickle.dumps(print, protocol=2), b"version https://git-lfs.github.com/spec/v1\n"]
    for zipped in (True, False):
        for tree in (state, training, network, foreign):
            with posing({TransferModel: "network.models"}):
                torch.save(tree, stream := io.BytesIO(), _use_new_zipfile_serialization=zipped)
            contents.append(stream.getvalue())
    return contents


def _load_checkpoint() -> Callable[[Path], None]:
    import torch

    from deepregions.safe_pickle import read_state_dict

    def read(path: Path) -> None:
        arrays = read_state_dict(path)
        assert arrays
        for name, value in arrays.items():
            assert type(name) is str
            assert isinstance(value, torch.Tensor)
            assert value.device.type == "cpu"
            assert value.numel() * value.element_size() <= value.untyped_storage().nbytes()

    return read


TARGETS: dict[str, Target] = {
    "checkpoint": Target(_checkpoint_seeds, _load_checkpoint),
    "store": Target(_store_seeds, _load_store, _lay_out_store),
    "shard": Target(_shard_seeds, _load_store, _lay_out_shard),
    "scores": Target(_score_seeds, _load_scores),
    "image": Target(_media_seeds("IMAGES"), _load_media),
    "video": Target(_media_seeds("VIDEOS"), _load_media),
    "provenance": Target(_provenance_seeds, _load_provenance),
    "landmarks": Target(_landmark_seeds, _load_landmarks),
    "openface": Target(_openface_seeds, _load_openface),
    "manifest": Target(_manifest_seeds, _load_bundle, _lay_out_manifest),
    "bundle": Target(
        lambda folder: [(_bundle(folder / "made") / _WEIGHTS).read_bytes()],
        _load_bundle,
        _lay_out_bundle,
    ),
}
