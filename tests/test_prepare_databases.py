"""Every database, from a tree as published with real (tiny) videos to a store."""

import json
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from random import Random
from typing import get_args

import numpy as np
import pytest
from data_helpers import write_video
from PIL import Image
from test_prepare import RED, PaintedDetector, paint
from trees import TREES, touch

from deepregions.commands.cli import run
from deepregions.commands.sources import Source
from deepregions.data.databases import DeepfakeBench
from deepregions.data.prepare import prepare
from deepregions.data.splits import Splitting
from deepregions.data.store import FaceStore
from deepregions.errors import StoreError

CONFIGS = Path(__file__).parents[1] / "configs"


@pytest.fixture(scope="module")
def write(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], None]:
    """Writes a video, or a picture, with one red face in it."""
    video = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_video(video, [paint((RED, 20 + i, 24, 40)) for i in range(4)])
    picture = video.with_suffix(".png")
    Image.fromarray(paint((RED, 20, 24, 40))).save(picture)

    def copy(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((picture if path.suffix == ".png" else video).read_bytes())

    return copy


@pytest.mark.parametrize("name", TREES)
def test_every_database_becomes_a_store(
    name: str, write: Callable[[Path], None], tmp_path: Path
) -> None:
    make, open_database = TREES[name]
    make(tmp_path / "root", Random(5), write)
    database = open_database(tmp_path / "root", Splitting("kfold", folds=3, fold=1))
    clips = {clip.key: clip for clip in database.clips()}
    report = prepare(database, tmp_path / "s", detector=PaintedDetector(), frames_per_video=2)
    assert report.failures == ()
    assert report.faces == sum(2 - (clip.path.suffix == ".png") for clip in clips.values())
    store = FaceStore(tmp_path / "s")
    assert store.info.database == database.name
    assert len(set(store.column("key"))) == len(store)
    where: dict[str, set[str]] = {}
    for face in store:
        clip = clips[face.video]
        assert (face.label, face.method, face.split) == (clip.label, clip.method, clip.split)
        assert (face.compression, face.identities) == (clip.compression, clip.identities)
        for person in face.identities:
            where.setdefault(person, set()).add(face.split)
    assert all(len(splits) == 1 for splits in where.values())


def test_frames_that_are_images(tmp_path: Path) -> None:
    """Of 10 images, three are taken from the middle of thirds; their time is their number."""
    frames = [f"FF-DF/c23/frames/000_003/{number:03d}.png" for number in range(10)]
    for number, frame in enumerate(frames):
        (tmp_path / frame).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(paint((RED, 10 + 2 * number, 24, 40))).save(tmp_path / frame)
    entry = {"label": "FF-DF", "frames": frames}
    tree = {"FF-DF": {"FF-DF": {"train": {"c23": {"000_003": entry}}}}}
    path = tmp_path / "FF-DF.json"
    path.write_text(json.dumps(tree))
    database = DeepfakeBench(path, splitting=Splitting("paper"))
    prepare(database, tmp_path / "s", detector=PaintedDetector(), frames_per_video=3)
    faces = list(FaceStore(tmp_path / "s"))
    assert [face.time for face in faces] == [1.0, 5.0, 8.0]
    assert [face.frame for face in faces] == [0, 1, 2]
    assert {face.identities for face in faces} == {("000", "003")}
    (tmp_path / frames[5]).write_bytes(b"no picture")
    with pytest.raises(StoreError, match=r"no face.*005\.png"):
        prepare(database, tmp_path / "t", detector=PaintedDetector(), frames_per_video=10)


@pytest.fixture(scope="module")
def face_video(portrait: Path) -> Path:
    picture = np.array(Image.open(portrait))[:256, 16:272]
    return write_video(portrait.with_suffix(".mp4"), [picture] * 4, rate=4)


OPTIONS = ["--landmarks", "dlib-hog", "--frames", "1"]


def test_a_part_of_a_database_by_command(
    face_video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = tmp_path / "UADFV", tmp_path / "store"
    for number in range(6):
        for name in (f"real/{number:04d}.mp4", f"fake/{number:04d}_fake.mp4"):
            touch(root / name)
            # Trailing bytes, which decoders pass over, make each file another one.
            (root / name).write_bytes(face_video.read_bytes() + name.encode())
    command = ["prepare", "--database", "uadfv", "--root", str(root), "--out", str(out), *OPTIONS]
    assert run(command) == 2
    capsys.readouterr()
    assert not out.exists()
    assert (
        run([*command, "--allow-partial", "--split", "kfold", "--folds", "3", "--fold", "2"]) == 0
    )
    printed = capsys.readouterr()
    assert "original: 6 of 49 videos" in printed.err
    assert "12 faces by dlib68+hog" in printed.out
    store = FaceStore(out)
    people = {split: set() for split in ("train", "val", "test")}
    for face in store:
        people[face.split].update(face.identities)
    assert len(people["test"]) == 2
    assert sum(map(len, people.values())) == 6
    assert run(["databases", "describe", str(out)]) == 0
    assert (tmp_path / "store.html").stat().st_size > 10_000


def test_a_table_by_command(
    face_video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["path,label,identities"]
    for number in range(4):
        (tmp_path / f"{number}.mp4").write_bytes(face_video.read_bytes() + bytes([number]))
        lines.append(f"{number}.mp4,{number % 2},p{number}")
    (tmp_path / "mine.csv").write_text("\n".join(lines))
    out = tmp_path / "store"
    command = ["prepare", "--database", "csv", "--root", str(tmp_path / "mine.csv")]
    assert run([*command, "--out", str(out), "--name", "mine", *OPTIONS]) == 0
    assert FaceStore(out).info.database == "mine"
    assert "4 faces" in capsys.readouterr().out
    assert run([*command, "--out", str(out), "--split", "official", *OPTIONS]) == 2
    assert "no official split" in capsys.readouterr().err


def test_real_files_by_command(
    shared: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DEEPREGIONS_CACHE", str(shared / "weights"))
    command = ["prepare", "--database", "dfdc", "--root", str(shared / "videos/dfdc")]
    command += ["--out", str(tmp_path / "s"), "--frames", "2", "--landmarks", "dlib"]
    assert run(command) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "--allow-partial" in error
    assert "awnfpubqmo.mp4" in error
    assert run([*command, "--allow-partial"]) == 0
    (person,) = {face.identities for face in FaceStore(tmp_path / "s")}
    assert person == ("gnmmhlbzge",)


SHIPPED = [name for name in get_args(Source) if name != "celebdf-v2"]


@pytest.mark.parametrize(
    ("database", "detector"), zip(SHIPPED, cycle(("xception", "capsule", "dsp_fwa")))
)
def test_shipped_configs_compose(
    database: str, detector: str, capsys: pytest.CaptureFixture[str]
) -> None:
    configs = [f"--config={CONFIGS}/{name}.yaml" for name in (database, detector)]
    with pytest.raises(SystemExit) as stopped:
        run(["fit", *configs, "--print_config"])
    assert stopped.value.code in (0, None)
    printed = capsys.readouterr().out
    assert f"store: stores/{database}\n" in printed
    assert "pretrained: true" in printed
