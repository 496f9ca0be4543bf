"""A study: its steps, what is done again and what is not, and what a failure leaves."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from deepregions.commands.cli import run
from deepregions.errors import UsageError
from deepregions.study.plan import DatabasePlan, DetectorPlan, Plan, Step
from deepregions.study.runner import StepError, Study

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
    ]
    with pytest.raises(StepError, match=r"^prepare/bad failed: (?!error).*none") as error:
        Study(steps, tmp_path, ["cpu"], tell).run()
    assert "prepare/bad.log" in error.value.hint
    assert told == [
        "prepare/good: begun on cpu",
        "prepare/good: finished",
        "prepare/bad: begun on cpu",
        "prepare/bad: failed",
        "prepare/needs: left out",
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


@pytest.mark.slow
def test_a_study_that_is_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(
        "model:\n  class_path: deepregions.detectors.Xception\n  init_args: {size: 32}\n"
        "data: {batch_size: 8, workers: 0}\n"
        "trainer: {max_epochs: 1, log_every_n_steps: 1, accelerator: cpu}\n"
    )
    (tmp_path / "plan.yaml").write_text(
        "databases:\n  - {database: toy, options: [--count, '48']}\n"
        "detectors:\n  - {config: [tiny.yaml], name: small}\n"
        "regions: [entire, eyes]\nout: study\ndevices: [cpu]\n"
        "evaluate: [--rounds, '5', --fusions, mean, --gates.min_size, '0', --device, cpu]\n"
    )
    command = [sys.executable, "-m", "deepregions", "reproduce", "--config", "plan.yaml"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    first = tmp_path / "study" / "done" / "fit" / "seed-0" / "toy" / "small-entire.json"
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, start_new_session=True)
    try:
        deadline = time.monotonic() + 300
        while not first.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        assert first.exists()
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    bundle = tmp_path / "study" / "bundles" / "seed-0" / "toy" / "small-entire" / "bundle.json"
    before = bundle.stat().st_mtime_ns
    done = subprocess.run(
        command, check=False, cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "small-entire" not in done.stderr  # it was finished
    assert "prepare/toy" not in done.stderr
    assert bundle.stat().st_mtime_ns == before
    page = Path("study") / "evaluation" / "seed-0" / "index.html"
    assert done.stdout.split() == [str(page)]
    results = json.loads((tmp_path / page).with_name("results.json").read_text())
    assert {"xception entire (toy)", "xception eyes (toy)", "all: mean"} <= {
        name.replace("all: mean (toy)", "all: mean") for name in results["databases"]["toy"]
    }


@pytest.mark.skipif(sys.platform == "win32", reason="no locks that children inherit")
def test_a_step_that_a_killed_run_has_left_is_waited_for(tmp_path: Path) -> None:
    """SIGKILL of the run alone: its step goes on, and is not begun a second time beside it."""
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[2])\n"
        "from test_reproduction import toy; from deepregions.study.runner import Study\n"
        "out = Path(sys.argv[1])\n"
        "Study([toy(out, 'a')], out, ['cpu'], lambda s, w: print(w, flush=True)).run()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path), str(ROOT / "tests")],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun on cpu\n"
        while not (tmp_path / "logs" / "prepare" / "a.log").exists():
            time.sleep(0.01)
        time.sleep(0.2)  # the child is there; it takes seconds to begin
        process.kill()
    told: list[str] = []
    steps = [toy(tmp_path, "a"), toy(tmp_path, "b")]
    study = Study(steps, tmp_path, ["cpu"], lambda s, w: told.append(f"{s.name}: {w}"))
    study.run()
    assert told[0].startswith("prepare/a: waits for")
    assert told[1:] == ["prepare/b: begun on cpu", "prepare/b: finished"]


def test_a_dry_run_shows_every_step_and_does_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(
        "model:\n  class_path: deepregions.detectors.Xception\n  init_args: {size: 32}\n"
        "trainer: {max_epochs: 7}\n"
    )
    (tmp_path / "plan.yaml").write_text(
        "databases:\n  - {database: toy, options: [--count, '100']}\n"
        "detectors:\n  - {config: [tiny.yaml]}\nregions: [eyes]\nout: study\n"
    )
    words = ["reproduce", "--config", "plan.yaml", "--dry_run"]
    assert run([*words, "--json"]) == 0
    steps = json.loads(capsys.readouterr().out)
    assert [step["step"] for step in steps] == [
        *("prepare/toy", "fit/seed-0/toy/tiny-eyes", "evaluate/seed-0")
    ]
    assert all(step["state"] == "to do" for step in steps)
    assert all(step["seconds"] > 0 and step["bytes"] > 0 for step in steps)
    assert not (tmp_path / "study").exists()
    (tmp_path / "tiny.yaml").write_text("model: nothing\n")
    assert run(words) == 2
    assert "the detector tiny" in capsys.readouterr().err


def test_trainings_run_side_by_side_one_a_device(tmp_path: Path) -> None:
    told: list[str] = []
    steps = [replace(toy(tmp_path, name), trains=True) for name in ("a", "b", "c")]
    steps.append(toy(tmp_path, "after", after=tuple(step.name for step in steps)))
    study = Study(
        steps, tmp_path, ["cpu:0", "cpu:1"], lambda step, what: told.append(f"{step.name}: {what}")
    )
    study.run()
    assert told[:2] == ["prepare/a: begun on cpu:0", "prepare/b: begun on cpu:1"]
    third = told.index(next(line for line in told if line.startswith("prepare/c: begun")))
    assert any(line.endswith("finished") for line in told[:third])  # a device was free again
    assert told[-2:] == ["prepare/after: begun on cpu:0", "prepare/after: finished"]
