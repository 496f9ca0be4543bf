"""Which manipulations are new to networks, by what their bundles say."""

from dataclasses import replace
from typing import Any
from unittest.mock import Mock

import pytest
from data_helpers import INFO, record
from networks import Tint, member
from score_tables import face, make_table

from deepregions.data.store import create_store
from deepregions.evaluation.protocols import Scored
from deepregions.evaluation.running import Media
from deepregions.evaluation.systems import manipulations_of, notes_on_manipulations, notes_on_people
from deepregions.forge.online import ForgeConfig
from deepregions.fusion.score_table import Origin
from deepregions.people import fingerprints
from deepregions.system import TrainedNetwork
from deepregions.types import Region
from deepregions.weights.bundle import Bundle
from deepregions.weights.manifest import BundleFacts


def network(region: Region, **training: Any) -> TrainedNetwork:
    return replace(member(Tint(), region), training=training)


def scored(*fakes: str, split: str = "test") -> Scored:
    rows = [
        face(str(number), label=int(method != "original"), method=method, split=split)
        for number, method in enumerate(("original", *fakes))
    ]
    return Scored(make_table(Origin("db"), ("tint",), (Region.ENTIRE,), rows))


def test_what_was_held_out_is_named():
    forge = ForgeConfig(("fwa", "self_blend")).settings()
    both = [network(Region.ENTIRE, forge=forge), network(Region.EYES, forge=forge)]
    found = list(notes_on_manipulations(both, [scored("fwa", "swap:eyes", "swap")]))
    assert found == [
        "by their bundles, all networks learned from fwa, self_blend; never seen in training: swap"
    ]
    (note,) = notes_on_manipulations(both, [scored("fwa"), scored("swap", split="val")])
    assert note.endswith("never seen in training: none of the manipulations here")
    other = network(Region.NOSE, forge=ForgeConfig(("fwa",), held_out=("swap",)).settings())
    second, first = notes_on_manipulations([*both, other], [scored("fwa", "swap")])
    assert "tint_nose.made learned from fwa, swap; never seen in training: none" in first
    assert "tint_entire.made, tint_eyes.made learned from fwa, self_blend;" in second
    assert second.endswith("training: swap")


@pytest.mark.parametrize(
    "training", [{}, {"forge": None}, {"forge": ForgeConfig(share=0.5).settings()}]
)
def test_where_a_bundle_does_not_say_nothing_is_claimed(training):
    silent = network(Region.NOSE, **training)
    assert manipulations_of(silent) is None
    assert list(notes_on_manipulations([silent], [scored("swap")])) == []
    known = network(Region.ENTIRE, forge=ForgeConfig().settings())
    first, second = notes_on_manipulations([known, silent], [scored("swap")])
    assert "tint_entire.made learned from" in first
    assert "do not say" in second
    assert second.endswith("tint_nose.made")


def test_people_of_an_evaluation_part_that_a_bundle_learned_from_are_counted(tmp_path):
    splits = ["train", "test", "test", "test"]
    faces = [record(n, split=s, identities=(f"p{n}",)) for n, s in enumerate(splits)]
    store = create_store(tmp_path / "s", INFO, faces)
    learned = fingerprints("test", [("p0", "p1"), ("p3",)])
    bundles = {"mine": Bundle((), facts=BundleFacts("real", people=learned)), "silent": Bundle(())}
    people = Media(Mock(), [store]).people()
    (note,) = notes_on_people(bundles, people)
    assert note.startswith("mine was trained on 2 of the 3 people in the evaluation part of test")
    elsewhere = BundleFacts("real", people=fingerprints("another", [("p1", "p3")]))
    assert not list(notes_on_people({"mine": Bundle((), facts=elsewhere)}, people))
    # Trained on "made"; the store may be of the same people under another name.
    named = Bundle(
        (network(Region.ENTIRE),), facts=BundleFacts("real", people=fingerprints("made", [("p3",)]))
    )
    (note,) = notes_on_people({"mine": named}, people)
    assert "people of made with the names of 1 of the 3 people in the evaluation part" in note
    assert "if they are the same people" in note
