"""A study: its steps, what is done again and what is not, and what a failure leaves."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from drawn_faces import write_drawn_store

from deepregions.commands.cli import run
from deepregions.errors import UsageError
from deepregions.study.plan import DatabasePlan, DetectorPlan, Plan, Step
from deepregions.study.runner import StepError, StudyRunner

TINY = (
    "model:\n  class_path: deepregions.detectors.Backbone\n"
    "  init_args: {size: 64, backbone: mobilenetv3_small_050}\n"
    "data: {batch_size: 8, workers: 0}\n"
    "trainer: {max_epochs: 1, log_every_n_steps: 1, accelerator: cpu}\n"
)
PLAN = (
    "databases:\n  - {database: store, root: drawn, name: drawn}\n"
    "detectors:\n  - {config: [tiny.yaml], name: small}\n"
    "regions: [entire, eyes]\nout: study\n"
    "evaluate: [--bootstrap-samples, '5', --fusions, mean, --gates.min_size, '0', --device, cpu]\n"
)


def plan(out: Path, **values: object) -> Plan:
    databases = [
        DatabasePlan("uadfv", root="data/one", name="one"),
        DatabasePlan("folder", root="data/two", name="two", forge=["fwa"]),
        DatabasePlan("store", root="three", name="three", train=False),
    ]
    detectors = [DetectorPlan(["configs/xception.yaml"]), DetectorPlan(["a.yaml"], "capsule")]
    settings = {"databases": databases, "detectors": detectors, "regions": ["eyes", "rest"]}
    return Plan(**(settings | {"out": out, "seeds": [3, 4]} | values))  # type: ignore[arg-type]


def step(out: Path, name: str, *words: str, after: tuple[str, ...] = ()) -> Step:
    """A step that takes no time: a schema's text is no store, but its mark is made before."""
    return Step(name, words or ("schema", "detect"), out / name / "mark", after)


def runner(steps: list[Step], out: Path) -> tuple[StudyRunner, list[str]]:
    told: list[str] = []

    def tell(step: Step, what: str) -> None:
        told.append(f"{step.name}: {what}")
        if what == "started" and "none" not in step.command:
            step.mark.parent.mkdir(parents=True, exist_ok=True)
            step.mark.touch()

    return StudyRunner(steps, out, tell), told


def test_every_network_of_every_database_and_seed_is_trained_once(tmp_path):
    steps = list(plan(tmp_path).steps())
    names = [step.name for step in steps]
    assert len(set(names)) == len(names)
    fits = [step for step in steps if step.command[0] == "fit"]
    assert len(fits) == 2 * 2 * 2 * 2  # seeds, trained databases, detectors, regions
    assert not any("three" in step.name for step in fits)
    done: set[str] = set()
    for each in steps:  # whatever a step needs comes before it
        assert set(each.after) <= done
        done.add(each.name)
    first = next(step for step in fits if step.name == "fit/seed-3/two/capsule-rest")
    assert first.after == ("prepare/two",)
    words = list(first.command)
    assert words[words.index("--data.region") + 1] == "rest"
    assert words[words.index("--seed_everything") + 1] == "3"
    assert words[words.index("--data.store") + 1] == str(tmp_path / "stores" / "two")
    (evaluation,) = [step for step in steps if step.name == "evaluate/seed-3"]
    assert {*evaluation.after} == {
        *(step.name for step in fits if "/seed-3/" in step.name),
        *("prepare/one", "forge/two"),
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
        ({"databases": [DatabasePlan("uadfv", name="../out")]}, "cannot name a file"),
        ({"databases": [DatabasePlan("uadfv", train=False)]}, "no database of the plan is trained"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(tmp_path, values, message):
    with pytest.raises(UsageError, match=message):
        plan(tmp_path, **values)


def test_paths_in_a_plan_are_relative_to_it(tmp_path):
    (tmp_path / "mine.yaml").write_text("{}")
    file = tmp_path / "plan.yaml"
    file.write_text(
        "databases: [{database: ffpp, root: data/ffpp}, {database: uadfv, root: /data/uadfv}]\n"
        "detectors: [{config: [xception.yaml, mine.yaml]}]\nout: study\n"
        "seeds: [1]\ndevices: [cpu]\n"
    )
    read = Plan.read(file)
    roots = [each.root for each in read.databases]
    assert roots == [str(tmp_path / "data" / "ffpp"), "/data/uadfv"]
    assert read.detectors[0].config == ["xception.yaml", str(tmp_path / "mine.yaml")]
    assert (read.out, read.seeds) == (tmp_path / "study", [1])
    assert Plan.read(file, out=Path("here")).out == Path("here")
    assert Plan.read(file, Path("/base")).databases[0].root == "/base/data/ffpp"
    file.write_text("databases: 5\n")
    with pytest.raises(UsageError, match=r"plan\.yaml: "):
        Plan.read(file)
    with pytest.raises(UsageError, match="cannot be read"):
        Plan.read(tmp_path / "nowhere.yaml")


def test_shipped_plans_can_be_read():
    for name in ("paper", "selfmade-study", "dfdc-study"):
        assert list(Plan.read(Path(__file__).parents[1] / "configs" / f"{name}.yaml").steps())


def test_what_is_finished_is_not_done_again_and_a_failure_stops_what_needs_it(tmp_path):
    steps = [
        step(tmp_path, "good"),
        step(tmp_path, "bad", "schema", "none"),
        step(tmp_path, "needs", after=("bad",)),
    ]
    study, told = runner(steps, tmp_path)
    with pytest.raises(StepError, match=r"^bad failed: (?!error).*none") as error:
        study.run()
    assert "bad.log" in error.value.hint
    assert told == [
        *("good: started", "good: finished"),
        *("bad: started", "bad: failed", "needs: left out"),
    ]
    steps[1] = step(tmp_path, "bad")
    study, told = runner(steps, tmp_path)
    study.run()
    assert told == ["bad: started", "bad: finished", "needs: started", "needs: finished"]
    study, told = runner(steps, tmp_path)
    study.run()
    assert not told
    with pytest.raises(UsageError, match="made with other options"):
        runner([replace(steps[0], command=("schema",))], tmp_path)


@pytest.mark.slow
def test_two_runners_share_the_steps(tmp_path):
    steps = [step(tmp_path, name) for name in "abcd"]
    steps.append(step(tmp_path, "last", after=("a", "b", "c", "d")))
    (one, first), (other, second) = runner(steps, tmp_path), runner(steps, tmp_path)
    threads = [threading.Thread(target=each.run) for each in (one, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    finished = [said for said in first + second if said.endswith("finished")]
    assert sorted(finished) == sorted(f"{each.name}: finished" for each in steps)


@pytest.mark.slow
def test_a_study_that_is_killed_goes_on_where_it_was(tmp_path):
    (tmp_path / "tiny.yaml").write_text(TINY)
    (tmp_path / "plan.yaml").write_text(PLAN)
    write_drawn_store(tmp_path / "drawn", count=48, size=96)
    command = [sys.executable, "-m", "deepregions", "reproduce", str(tmp_path / "plan.yaml")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    first = tmp_path / "study" / "done" / "fit" / "seed-0" / "drawn" / "small-entire.json"
    with subprocess.Popen(command, env=environment) as process:
        deadline = time.monotonic() + 300
        while not first.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
    assert first.exists()
    bundle = tmp_path / "study" / "bundles" / "seed-0" / "drawn" / "small-entire" / "bundle.json"
    before = bundle.stat().st_mtime_ns
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "small-entire" not in done.stderr  # it was finished
    assert bundle.stat().st_mtime_ns == before
    page = tmp_path / "study" / "evaluation" / "seed-0" / "index.html"
    assert done.stdout.split() == [str(page)]
    results = json.loads(page.with_name("results.json").read_text())
    assert {f"mobilenetv3_small_050 {part} (drawn)" for part in ("entire", "eyes")} <= {
        *results["databases"]["drawn"]
    }


def test_a_dry_run_shows_every_step_and_does_nothing(tmp_path, capsys):
    (tmp_path / "plan.yaml").write_text(PLAN)
    words = ["reproduce", str(tmp_path / "plan.yaml"), "--dry-run", "--regions", "eyes"]
    assert run([*words, "--json"]) == 0
    steps = json.loads(capsys.readouterr().out)
    assert [step["step"] for step in steps] == [*("fit/seed-0/drawn/small-eyes", "evaluate/seed-0")]
    assert all(step["state"] == "to do" for step in steps)
    assert run(["reproduce", "--config", str(tmp_path / "plan.yaml"), "--dry_run"]) == 0
    printed = capsys.readouterr()
    assert "3 of 3 steps to do" in printed.out
    assert printed.err == "deepregions: give the file without --config\n"
    assert not (tmp_path / "study").exists()
