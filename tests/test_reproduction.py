"""A study: its steps, what is done again and what is not, and what a failure leaves."""

from dataclasses import replace
from pathlib import Path

import pytest

from deepregions.errors import UsageError
from deepregions.reproduction.plan import DatabasePlan, DetectorPlan, Plan, Step
from deepregions.reproduction.running import StepError, Study

ROOT = Path(__file__).parents[1]


def plan(out: Path, **values: object) -> Plan:
    databases = [
        DatabasePlan("toy", name="one", options=["--count", "12"]),
        DatabasePlan("folder", root="data/two", name="two", forge=["fwa"]),
        DatabasePlan("toy", name="three", train=False),
    ]
    detectors = [DetectorPlan(["configs/xception.yaml"]), DetectorPlan(["a.yaml"], "capsule")]
    settings = {"databases": databases, "detectors": detectors, "regions": ["eyes", "rest"]}
    return Plan(**(settings | {"out": out, "seeds": [3, 4]} | values))  # type: ignore[arg-type]


def toy(out: Path, name: str, *options: str, after: tuple[str, ...] = ()) -> Step:
    store = out / name
    words = ("prepare", "--database", "toy", "--count", "12", "--out", str(store), *options)
    return Step(f"prepare/{name}", words, store, "store.json", after)


def test_every_network_of_every_database_and_seed_is_trained_once(tmp_path: Path) -> None:
    steps = list(plan(tmp_path).steps())
    names = [step.name for step in steps]
    assert len(set(names)) == len(names)
    fits = [step for step in steps if step.trains]
    assert len(fits) == 2 * 2 * 2 * 2  # seeds, trained databases, detectors, regions
    assert not any("three" in step.name for step in fits)
    done: set[str] = set()
    for step in steps:  # whatever a step needs comes before it
        assert set(step.after) <= done
        done.add(step.name)
    first = next(step for step in fits if step.name == "fit/seed-3/two/capsule-rest")
    assert first.after == ("prepare/two",)
    words = list(first.command)
    assert words[words.index("--data.region") + 1] == "rest"
    assert words[words.index("--seed_everything") + 1] == "3"
    assert words[words.index("--data.store") + 1] == str(tmp_path / "stores" / "two")
    (evaluation,) = [step for step in steps if step.name == "evaluate/seed-3"]
    assert {*evaluation.after} == {
        *(step.name for step in fits if "/seed-3/" in step.name),
        *("prepare/one", "forge/two", "prepare/three"),
    }
    assert str(tmp_path / "stores" / "two-forged") in evaluation.command
    assert str(tmp_path / "stores" / "two") not in evaluation.command


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"databases": []}, "no databases"),
        ({"detectors": []}, "no detectors"),
        ({"regions": ["ears"]}, "unknown region 'ears'"),
        ({"regions": ["eyes", "eyes"]}, "regions are named twice"),
        ({"seeds": []}, "no seeds"),
        ({"databases": [DatabasePlan("toy", name="../out")]}, "no file's name"),
        ({"databases": [DatabasePlan("toy", train=False)]}, "no database of the plan is trained"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(
    tmp_path: Path, values: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        plan(tmp_path, **values)


def test_what_is_finished_is_not_done_again_and_a_failure_stops_what_needs_it(
    tmp_path: Path,
) -> None:
    told: list[str] = []

    def tell(step: Step, what: str) -> None:
        told.append(f"{step.name}: {what}")

    steps = [
        toy(tmp_path, "good"),
        toy(tmp_path, "bad", "--count", "none"),
        toy(tmp_path, "needs", after=("prepare/bad",)),
        toy(tmp_path, "last", after=("prepare/good",)),
    ]
    with pytest.raises(StepError, match=r"^prepare/bad failed: .*none") as error:
        Study(steps, tmp_path, ["cpu"], tell).run()
    assert "prepare/bad.log" in error.value.hint
    assert told == [
        "prepare/good: begun on cpu",
        "prepare/good: finished",
        "prepare/bad: begun on cpu",
        "prepare/bad: failed",
        "prepare/needs: left out",
        "prepare/last: begun on cpu",
        "prepare/last: finished",
    ]
    told.clear()
    steps[1] = toy(tmp_path, "bad")
    Study(steps, tmp_path, ["cpu"], tell).run()
    assert told == [
        *("prepare/bad: begun on cpu", "prepare/bad: finished"),
        *("prepare/needs: begun on cpu", "prepare/needs: finished"),
    ]
    told.clear()
    Study(steps, tmp_path, ["cpu"], tell).run()
    assert not told
    other = [replace(steps[0], command=(*steps[0].command, "--seed", "5"))]
    with pytest.raises(UsageError, match="made with other options"):
        Study(other, tmp_path, ["cpu"], tell)
