"""Nobody is on two sides, whatever the database and however it is divided."""

import tempfile
from collections import Counter
from itertools import combinations
from pathlib import Path
from random import Random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from trees import TREES, touch

from deepregions.data.clips import Clip, assert_identity_disjoint
from deepregions.data.splits import ELSEWHERE, TWO_SIDES, UNOFFICIAL, Splitting, divide
from deepregions.errors import UsageError
from deepregions.people import people_splits

SCHEMES = st.one_of(
    st.just(Splitting("official")),
    st.builds(Splitting, st.just("paper"), seed=st.integers(0, 9)),
    st.integers(2, 6).flatmap(
        lambda folds: st.builds(
            Splitting, st.just("kfold"), st.just(folds), st.integers(0, folds - 1)
        )
    ),
)


def clip(people: str, split: str = "", label: int = 0, group: str = "") -> Clip:
    names = tuple(people.split("-"))
    key = f"{people}/{split}/{label}"
    return Clip(Path(key), key, label, "", "", names, split, group)


def sides(clips: list[Clip]) -> dict[str, set[str]]:
    """The splits of each person, found without the code under test."""
    where: dict[str, set[str]] = {}
    for one in clips:
        for person in one.identities:
            where.setdefault(person, set()).add(one.split)
    return where


@pytest.mark.parametrize("name", TREES)
@settings(max_examples=25)
@given(st.integers(0, 10**6), SCHEMES)
def test_nobody_is_on_two_sides(name, seed, splitting):
    make, open_database = TREES[name]
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), Random(seed), touch)
        database = open_database(Path(folder), splitting)
        listing = database.listing()
        try:
            clips = database.clips()
        except UsageError as error:
            assert splitting.scheme == "official"
            assert "no official split" in str(error)
            assert all(not one.split for one in listing.clips)
            return
    assert all(len(found) == 1 for found in sides(clips).values())
    assert {one.split for one in clips} <= {"train", "val", "test"}
    keys = [one.key for one in listing.clips]
    assert len(set(keys)) == len(keys)
    dropped = sum(database.left_out.values()) - sum(listing.left_out.values())
    assert len(clips) + dropped == len(keys)  # every clip has a place or a reason
    assert [one.key for one in clips] == [key for key in keys if key in {c.key for c in clips}]
    if splitting.scheme == "official":
        official = {one.key: one.split for one in listing.clips}
        tested = {one.key for one in clips if one.split == "test"}
        assert tested == {key for key, split in official.items() if split == "test"}
    assert all(one.path.name for one in clips)


people = st.integers(0, 14).map(str)
crowd = st.lists(
    st.tuples(st.lists(people, min_size=1, max_size=3), st.integers(0, 1), st.sampled_from("xy")),
    min_size=1,
    max_size=80,
)


@given(crowd, SCHEMES, st.data())
def test_any_clips_are_divided_alike_in_any_order(crowd, splitting, data):
    clips = [
        Clip(
            Path(),
            str(i),
            label,
            "",
            "",
            tuple(names),
            data.draw(st.sampled_from(["", "train", "val", "test"])),
            group,
        )
        for i, (names, label, group) in enumerate(crowd)
    ]
    assume(splitting.scheme != "official" or any(one.split for one in clips))
    found, dropped = divide(clips, splitting)
    assert_identity_disjoint(found)
    assert len(found) + sum(dropped.values()) == len(clips)
    order = data.draw(st.permutations(clips))
    again, _ = divide(order, splitting)
    assert {one.key: one.split for one in again} == {one.key: one.split for one in found}


def test_official_test_people_are_nowhere_else():
    clips = [
        clip("a", "test"),
        clip("a", "train"),  # a test person's video in training
        clip("a-b", "train", 1),
        clip("b", "train"),
        clip("c", "val"),
        clip("c-a", "val", 1),
        clip("b-d", "", 1),
    ]
    kept, dropped = divide(clips, Splitting("official"))
    assert {one.key: one.split for one in kept} == {
        "a/test/0": "test",
        "b/train/0": "train",
        "c/val/0": "val",
    }
    assert dropped == {ELSEWHERE: 1, TWO_SIDES: 2, UNOFFICIAL: 1}


def test_a_development_part_is_taken_out_of_training():
    clips = [clip(f"p{i}", "train", i % 2) for i in range(40)] + [clip("q", "test")]
    kept, dropped = divide(clips, Splitting("official"))
    assert not dropped
    counts = Counter((one.split, one.label) for one in kept)
    assert counts == {("train", 0): 18, ("train", 1): 18, ("val", 0): 2, ("val", 1): 2} | {
        ("test", 0): 1
    }
    kept, _ = divide(clips, Splitting("official"), carve=False)
    assert Counter(one.split for one in kept) == {"train": 40, "test": 1}


def test_folds_take_turns():
    clips = [clip(f"p{i}", label=i % 2) for i in range(50)]
    tests = []
    for fold in range(5):
        kept, dropped = divide(clips, Splitting("kfold", 5, fold))
        assert not dropped
        counts = Counter(one.split for one in kept)
        assert counts == {"train": 36, "val": 4, "test": 10}
        tests.append({one.key for one in kept if one.split == "test"})
    assert not any(one & two for one, two in combinations(tests, 2))
    assert set.union(*tests) == {one.key for one in clips}


def test_a_group_stays_together():
    clips = [clip(f"p{i}", label=i % 2, group=f"g{i // 10}") for i in range(120)]
    kept, dropped = divide(clips, Splitting("paper"))
    assert not dropped
    where: dict[str, set[str]] = {}
    for one in kept:
        where.setdefault(one.group, set()).add(one.split)
    assert all(len(found) == 1 for found in where.values())
    assert {split for found in where.values() for split in found} == {"train", "val", "test"}


def test_people_who_all_hang_together_are_parted_at_a_small_loss():
    """Two circles who swap faces among themselves, and now and then across (as Celeb-DF)."""
    rng = Random(0)
    circles = [[f"a{i}" for i in range(24)], [f"b{i}" for i in range(6)]]
    clips = []
    for circle in circles:
        clips += [([one], 0) for one in circle]
        clips += [(rng.sample(circle, 2), 1) for _ in range(20 * len(circle))]
    clips += [([rng.choice(circles[0]), rng.choice(circles[1])], 1) for _ in range(12)]
    side = people_splits(clips)
    counts = Counter(side.values())
    assert set(counts) == {"train", "val", "test"}
    assert counts["train"] > counts["test"] > 1
    lost = sum(len({side[name] for name in names}) > 1 for names, _ in clips)
    # People drawn at the same shares without a search lose about half of the fakes.
    assert lost < 0.4 * sum(label for _, label in clips)
    assert people_splits(clips) == side
    assert people_splits(clips, seed=1) != side


def test_few_people_are_not_parted():
    clips = [(["a"], 0), (["b"], 0), (["a", "b"], 1), (["b", "a"], 1)]
    assert set(people_splits(clips).values()) == {"train"}


@pytest.mark.parametrize(
    "values",
    [{"scheme": "random"}, {"folds": 1}, {"fold": 5}, {"fold": -1}, {"folds": 3, "fold": 3}],
)
def test_splittings_that_make_no_sense(values):
    with pytest.raises(UsageError):
        Splitting(**values)
