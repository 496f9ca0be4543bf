"""Splits in which nobody is on two sides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from deepregions.data.clips import Clip
from deepregions.errors import UsageError
from deepregions.people import FRACTIONS, people_splits

CARVED: Mapping[str, float] = {"train": 0.875, "val": 0.125}  # of what is not for evaluation

Scheme = Literal["official", "paper", "kfold"]

UNOFFICIAL = "not in the official splits"
TWO_SIDES = "its two people are in different splits"
ELSEWHERE = "somebody in it is in another split"


@dataclass(frozen=True)
class Splitting:
    """How a database is divided into train, val (development) and test (evaluation).

    Attributes:
        scheme: ``"official"``: as published; ``"paper"``: by people, about 80 % (of which an
            eighth for development) to 20 %; ``"kfold"``: by people, a K-th for evaluation. None
            is the database's own default.
        folds: K.
        fold: Which of the K is for evaluation, from 0.
    """

    scheme: Scheme | None = None
    folds: int = 5
    fold: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.scheme is not None and self.scheme not in get_args(Scheme):
            raise UsageError(
                f"no split {self.scheme!r}", f"there are {', '.join(get_args(Scheme))}"
            )
        if self.folds < 2:
            raise UsageError(f"folds must be at least 2, not {self.folds}")
        if not 0 <= self.fold < self.folds:
            raise UsageError(f"fold must be from 0 to {self.folds - 1}, not {self.fold}")


def divide(
    clips: Sequence[Clip], splitting: Splitting, *, carve: bool = True
) -> tuple[list[Clip], dict[str, int]]:
    """Gives each clip its split; nobody is in two, and clips of people of two are dropped.

    What is for evaluation is settled first, what is for development next; who is in either is
    nowhere else. Where the official splits have no development part, one is taken (``carve``) out
    of the training part, by people. The result does not depend on the order of the clips.

    Returns:
        The clips that have a place, in their order, and how many have none, by reason.

    Raises:
        UsageError: There is no official split.
    """
    if splitting.scheme == "official":
        return _official(clips, splitting.seed, carve=carve)
    if splitting.scheme == "paper":
        return _placed(clips, _by_people(clips, FRACTIONS, splitting.seed))
    folds = {str(number): 1 / splitting.folds for number in range(splitting.folds)}
    numbers = _by_people(clips, folds, splitting.seed)
    held_out = {name: "test" for name, number in numbers.items() if number == str(splitting.fold)}
    rest = [clip for clip in clips if not held_out.keys() & set(clip.identities)]
    others = dict.fromkeys(numbers, "train") | _by_people(rest, CARVED, splitting.seed)
    return _placed(clips, others | held_out)


def _official(
    clips: Sequence[Clip], seed: int, *, carve: bool
) -> tuple[list[Clip], dict[str, int]]:
    splits = {clip.split for clip in clips}
    if splits == {""}:
        raise UsageError("what is there has no official split", "choose --split paper or kfold")
    side: dict[str, str] = {}
    for split in ("test", "val", "train"):
        people = (name for clip in clips if clip.split == split for name in clip.identities)
        side = dict.fromkeys(people, split) | side
    if carve and "val" not in splits:
        train = [c for c in clips if c.split == "train" and _sides(c, side) == {"train"}]
        side |= _by_people(train, CARVED, seed)
        carved = {clip.key for clip in train}
        clips = [replace(c, split=side[c.identities[0]]) if c.key in carved else c for c in clips]
    return _placed(clips, side, official=True)


def _placed(
    clips: Sequence[Clip], side: Mapping[str, str], *, official: bool = False
) -> tuple[list[Clip], dict[str, int]]:
    """Keeps the clips all of whose people are on one side (officially, on the clip's own)."""
    kept: list[Clip] = []
    dropped: Counter[str] = Counter()
    for clip in clips:
        sides = _sides(clip, side)
        (split,) = sides if len(sides) == 1 else ("",)
        if split and (not official or split == clip.split):
            kept.append(replace(clip, split=split))
        elif len(sides) > 1 and "" not in sides:
            dropped[TWO_SIDES] += 1
        else:
            dropped[UNOFFICIAL if official and not clip.split else ELSEWHERE] += 1
    return kept, dict(dropped)


def _sides(clip: Clip, side: Mapping[str, str]) -> set[str]:
    return {side.get(name, "") for name in clip.identities}


def _by_people(clips: Sequence[Clip], fractions: Mapping[str, float], seed: int) -> dict[str, str]:
    """Returns the side of each person; a clip's group stays with its people where it can."""
    nodes = [(*c.identities, *([f"group {c.group}"] if c.group else [])) for c in clips]
    return people_splits([(n, c.label) for n, c in zip(nodes, clips, strict=True)], fractions, seed)
