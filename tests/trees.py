"""Databases laid out as published, with whatever people a random generator picks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random

from deepregions.data import databases
from deepregions.data.databases import Adapter, Clip
from deepregions.data.splits import Splitting

Write = Callable[[Path], None]


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def facts(clip: Clip) -> str:
    """Label, method, compression, people and split of a clip."""
    people = "+".join(clip.identities)
    return f"{clip.label} {clip.method} {clip.compression or '-'} {people} {clip.split or '-'}"


def ffpp(root: Path, rng: Random, write: Write, compression: str = "c23") -> None:
    people = [f"{number:03d}" for number in rng.sample(range(1000), 12)]
    pairs = [people[i : i + 2] for i in range(0, 12, 2)]
    for split, some in (("train", pairs[:4]), ("val", pairs[4:5]), ("test", pairs[5:])):
        write_json(root / f"splits/{split}.json", some)
    for person in people:
        write(root / f"original_sequences/youtube/{compression}/videos/{person}.mp4")
    for method in ("Deepfakes", "FaceSwap"):
        for one, two in pairs:
            for pair in (f"{one}_{two}", f"{two}_{one}"):
                write(root / f"manipulated_sequences/{method}/{compression}/videos/{pair}.mp4")


def dfd(root: Path, rng: Random, write: Write) -> None:
    actors = [f"{number:02d}" for number in range(1, rng.randint(3, 16))]
    for actor in actors:
        write(root / f"original_sequences/actors/c23/videos/{actor}__talking_outside.mp4")
    folder = root / "manipulated_sequences/DeepFakeDetection/c23/videos"
    for _ in range(40):
        target, source = rng.sample(actors, 2)
        write(folder / f"{target}_{source}__walk_down_hall_angry__{rng.randint(0, 10**8):08d}.mp4")


def celebdf(root: Path, rng: Random, write: Write) -> None:
    people = [f"id{number}" for number in rng.sample(range(62), rng.randint(3, 14))]
    names = [f"Celeb-real/{person}_{take:04d}" for person in people for take in range(2)]
    names += [f"YouTube-real/{number:05d}" for number in range(6)]
    for _ in range(40):
        target, source = rng.sample(people, 2)
        names.append(f"Celeb-synthesis/{target}_{source}_{rng.randint(0, 9999):04d}")
    names = sorted(set(names))
    for name in names:
        write(root / f"{name}.mp4")
    tested = rng.sample(names, 8)
    lines = [f"{0 if name.startswith('Celeb-synthesis') else 1} {name}.mp4" for name in tested]
    (root / "List_of_testing_videos.txt").write_text("\n".join(lines) + "\n")


def celebdf_pp(root: Path, rng: Random, write: Write) -> None:
    celebdf(root, rng, write)
    tested = root / "List_of_testing_videos.txt"
    fakes = sorted((root / "Celeb-synthesis").glob("*.mp4"))
    folders = ("FaceSwap/Celeb-DF", "FaceReenact/LIA", "TalkingFace/FLOAT")
    for number, path in enumerate(fakes):
        moved = root / "Celeb-synthesis" / folders[number % 3] / path.name
        listed = tested.read_text().replace(
            f"/{path.name}\n", f"/{folders[number % 3]}/{path.name}\n"
        )
        tested.write_text(listed)
        moved.parent.mkdir(parents=True, exist_ok=True)
        path.rename(moved)


def df40(root: Path, rng: Random, write: Write) -> None:
    people = [f"{number:03d}" for number in rng.sample(range(1000), 8)]
    for method in ("simswap", "lia"):
        fakes, reals = {"train": {}, "test": {}}, {"train": {}, "test": {}}  # type: ignore[var-annotated]
        for number, (one, two) in enumerate(zip(people[::2], people[1::2], strict=True)):
            part = "train" if number < 3 else "test"
            for video in (one, two, f"{one}_{two}"):
                fake = "_" in video
                folder = f"DF40/{method}/ff" if fake else "FaceForensics++/original_sequences"
                frames = [f"{folder}/frames/{video}/{frame:03d}.png" for frame in range(2)]
                for frame in frames:
                    write(root / frame)
                label = "roop_Fake" if fake else "roop_Real"
                (fakes if fake else reals)[part][video] = {"label": label, "frames": frames}
        labels = {"roop_Real": reals, "roop_Fake": fakes}
        write_json(root / f"dataset_json/{method}_ff.json", {f"{method}_ff": labels})


def uadfv(root: Path, rng: Random, write: Write) -> None:
    for number in rng.sample(range(49), rng.randint(3, 12)):
        write(root / f"real/{number:04d}.mp4")
        write(root / f"fake/{number:04d}_fake.mp4")


def dfdc(root: Path, rng: Random, write: Write) -> None:
    for part in range(rng.choice((1, 3, 12))):
        folder = root / f"dfdc_train_part_{part}"
        metadata = {}
        for number in range(4):
            original = f"orig{part:02d}{number:02d}.mp4"
            metadata[original] = {"label": "REAL", "split": "train"}
            for fake in range(rng.randint(0, 3)):
                name = f"fake{part:02d}{number:02d}{fake}.mp4"
                metadata[name] = {"label": "FAKE", "split": "train", "original": original}
        for name in metadata:
            write(folder / name)
        write_json(folder / "metadata.json", metadata)
    parts = rng.choice((["test"], ["validation", "test"]))
    for part in parts:
        labels = {f"{part}{number}.mp4": number % 2 for number in range(6)}
        for name in labels:
            write(root / part / name)
        lines = ["filename,label", *(f"{name},{label}" for name, label in labels.items())]
        (root / part / "labels.csv").write_text("\n".join(lines) + "\n")


def dfdc_preview(root: Path, rng: Random, write: Write) -> None:
    people = rng.sample(range(100_000, 2_000_000), rng.randint(6, 14))
    dataset = {}
    for number, person in enumerate(people):
        part = "test" if number < 2 else "train"
        name = f"original_videos/{person}/{person}_A_001.mp4"
        about = {"label": "real", "set": part, "target_id": person, "swapped_id": None}
        dataset[name] = about | {"augmentations": []}
    for take in range(20):
        target, swapped = rng.sample(people, 2)  # also across the sets: these must not survive
        part = "test" if people.index(target) < 2 else "train"
        method = rng.choice("AB")
        name = f"method_{method}/{target}/{target}_A/{swapped}_{target}_A_{take:03d}.mp4"
        about = {"label": "fake", "set": part, "target_id": target, "swapped_id": swapped}
        dataset[name] = about | {"augmentations": []}
    for name in dataset:
        write(root / name)
    write_json(root / "dataset.json", dataset)


def folder(root: Path, rng: Random, write: Write) -> None:
    for person in range(rng.randint(3, 15)):
        for shot in ("neutral", "smiling"):
            write(root / f"real/{person:03d}_{shot}.mp4")
        other = rng.randrange(15)
        write(root / f"fake/{person:03d}_{other:03d}.mp4")


def given_folder(root: Path, rng: Random, write: Write) -> None:
    for number, split in enumerate(rng.choice((("train", "test"), ("train", "val", "test")))):
        for person in range(rng.randint(2, 9)):
            write(root / f"{split}/real/{number}{person:02d}_a.mp4")
            write(root / f"{split}/fake/{number}{person:02d}_b.mp4")


def manifest(root: Path, rng: Random, write: Write) -> None:
    lines = ["path,label,method,identities,split"]
    splits = rng.choice((["", "", ""], ["train", "train", "test"], ["train", "val", "test"]))
    for number in range(24):
        people = [f"p{rng.randrange(12)}" for _ in range(rng.randint(1, 2))]
        label = rng.choice(("0", "1"))
        lines.append(f"clip{number}.mp4,{label},,{';'.join(people)},{rng.choice(splits)}")
        write(root / f"clip{number}.mp4")
    (root / "manifest.csv").write_text("\n".join(lines) + "\n")


def deepfakebench(root: Path, rng: Random, write: Write) -> None:
    people = [f"id{number}" for number in rng.sample(range(62), rng.randint(3, 12))]
    names = {f"{person}_0000": "CelebDFv2_real" for person in people}
    for _ in range(25):
        target, source = rng.sample(people, 2)
        names[f"{target}_{source}_0001"] = "CelebDFv2_fake"
    labels: dict[str, dict[str, dict[str, object]]] = {
        label: {"train": {}, "val": {}, "test": {}}
        for label in ("CelebDFv2_real", "CelebDFv2_fake")
    }
    for name, label in names.items():
        frames = [f"Celeb-DF-v2/{label}/frames/{name}/{number:03d}.png" for number in range(2)]
        for frame in frames:
            write(root / frame)
        entry = {"label": label, "frames": frames[::-1]}
        labels[label]["train"][name] = entry  # as its script does: everything is in train
        if rng.random() < 0.2:
            labels[label]["test"][name] = labels[label]["val"][name] = entry
    write_json(root / "Celeb-DF-v2.json", {"Celeb-DF-v2": labels})


TREES: dict[str, tuple[Callable[..., None], Callable[[Path, Splitting], Adapter]]] = {
    "ffpp": (ffpp, lambda root, how: databases.FaceForensics(root, splitting=how)),
    "dfd": (dfd, lambda root, how: databases.DeepFakeDetection(root, splitting=how)),
    "celebdf": (celebdf, databases.CelebDF),
    "celebdf-v1": (celebdf, databases.CelebDFv1),
    "celebdf-pp": (celebdf_pp, databases.CelebDFPlusPlus),
    "df40": (df40, lambda root, how: databases.DF40(root, splitting=how)),
    "uadfv": (uadfv, databases.Uadfv),
    "dfdc": (dfdc, databases.Dfdc),
    "dfdc-preview": (dfdc_preview, databases.DfdcPreview),
    "folder": (folder, lambda root, how: databases.Folder(root, splitting=how)),
    "given-folder": (given_folder, lambda root, how: databases.Folder(root, splitting=how)),
    "csv": (manifest, lambda root, how: databases.Manifest(root, splitting=how)),
    "deepfakebench": (
        deepfakebench,
        lambda root, how: databases.DeepfakeBench(root / "Celeb-DF-v2.json", splitting=how),
    ),
}
