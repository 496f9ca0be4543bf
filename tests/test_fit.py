"""Training through its real entry point, on drawn faces."""

import csv
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from drawn_faces import write_drawn_store
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback
from safetensors.torch import save_file

from deepregions.commands.cli import run
from deepregions.data.store import FaceStore, create_store
from deepregions.people import fingerprints
from deepregions.weights.bundle import load_bundle

SMALL = {
    "Xception": ["--model", "Xception", "--model.size", "64"],
    "Capsule": ["--model", "Capsule", "--model.size", "64"],
    "DSPFWA": ["--model", "DSPFWA", "--model.size", "64", "--model.pyramid", "adaptive"],
}
QUICK = ["--model", "Backbone", "--model.size", "32", "--model.backbone", "mobilenetv3_small_050"]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("stores") / "toy"
    write_drawn_store(path, count=48, size=96)
    return path


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def options(store: Path, *more: str, epochs: int = 1) -> list[str]:
    data = ["--data.store", str(store), "--data.batch_size", "8", "--data.workers", "0"]
    return [*data, "--trainer.max_epochs", str(epochs), "--trainer.log_every_n_steps", "1", *more]


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize("forged", [False, True])
def test_a_bundle_knows_whose_fakes_it_learned_from(forged, store, here):
    """Others call their manipulations swap, too."""
    toy = FaceStore(store)
    faces = [
        replace(
            face,
            method=face.method if face.method == "original" else "swap",
            video=face.video + ("~swap" if forged and face.method != "original" else ""),
        )
        for face in toy
    ]
    create_store(here / "theirs", replace(toy.info, database="theirs", landmarks="dlib"), faces)
    assert run(["fit", *QUICK, *options(here / "theirs", "--bundle", "bundle")]) == 0
    kind = load_bundle(here / "bundle").facts.trained_on_kind
    assert kind == ("self-made" if forged else "real")


def epoch_of(checkpoint: Path) -> int:
    return int(torch.load(checkpoint, weights_only=True)["epoch"])


def start_module(arguments: list[str], folder: Path) -> subprocess.Popen[str]:
    """Starts ``python -m deepregions.fit`` as a user would, in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "deepregions.fit", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
    )


@pytest.mark.parametrize(
    ("detector", "precision"),
    [("Xception", "bf16-mixed"), ("Capsule", "32"), ("DSPFWA", "16-mixed")],
)
def test_every_detector_trains_in_every_precision_and_leaves_a_bundle(
    detector, precision, store, here, capsys
):
    chosen = ["--trainer.precision", precision, "--data.region", "eyes"]
    assert run(["fit", *SMALL[detector], *options(store, *chosen)]) == 0
    assert "bundle: runs/fit/version_0/bundle" in capsys.readouterr().out
    log = here / "runs" / "fit" / "version_0"
    bundle = load_bundle(log / "bundle")
    (member,) = bundle
    assert bundle.facts.trained_on_kind == "drawn"
    assert bundle.facts.recipe["data"]["store"] == store.name  # a folder's name, not where it is
    assert str(store.parent) not in (log / "bundle" / "bundle.json").read_text()
    trained = FaceStore(store)
    names = itertools.compress(trained.column("identities"), trained.splits == "train")
    assert bundle.facts.people == fingerprints("drawn", names)
    assert type(member.detector).__name__ == detector
    assert (member.region, member.database) == ("eyes", "drawn")
    assert member.detector.settings()["size"] == 64
    training = member.training
    assert training["store"] == FaceStore(store).fingerprint
    assert (training["landmarks"]["name"], training["seed"]) == ("drawn", 0)
    words = training["command"]
    assert words[:2] == ["deepregions", "fit"]
    assert words[words.index("--data.store") + 1] == store.name
    figures = {"frame_auc", "frame_eer", "frame_accuracy", "video_auc"}
    assert figures <= set(training["validation"])
    validated = [row for row in rows(log) if row["val/frame_accuracy"]]
    assert all(row["val/video_eer"] for row in validated)
    assert list((here / "runs" / "tensorboard" / "version_0").glob("events*"))
    best = torch.load(log / "checkpoints" / "epoch=000.ckpt", weights_only=True)
    for name, value in member.detector.state_dict().items():
        torch.testing.assert_close(value, best["state_dict"][f"detector.{name}"], rtol=0, atol=0)


def test_averaged_weights_leave_a_bundle_with_the_figures_of_its_own_epoch(store, here):
    where = "pytorch_lightning.callbacks"
    kept = {"monitor": "epoch", "mode": "min", "filename": "first"}  # not the last
    callbacks = [
        {"class_path": f"{where}.ModelCheckpoint", "init_args": kept},
        {"class_path": f"{where}.EMAWeightAveraging", "init_args": {"decay": 0.5}},
    ]
    Path("averaged.yaml").write_text(json.dumps({"trainer": {"callbacks": callbacks}}))
    averaged = ["--config", "averaged.yaml", "--model.optimizer.lr", "0.01"]
    averaged += ["--trainer.default_root_dir", "logs"]
    assert run(["fit", *QUICK, *averaged, *options(store, epochs=3)]) == 0
    assert not (here / "runs").exists()
    log = here / "logs" / "fit" / "version_0"
    (member,) = load_bundle(log / "bundle")
    first, *_, last = [row for row in rows(log) if row["val/loss"]]
    assert member.training["epoch"] == 0
    assert member.training["validation"]["loss"] == pytest.approx(
        float(first["val/loss"]), rel=1e-4
    )
    assert first["val/loss"] != last["val/loss"]
    best = torch.load(log / "checkpoints" / "first.ckpt", weights_only=True)
    weights = member.detector.state_dict()
    assert all(
        torch.equal(value, best["state_dict"][f"detector.{name}"])
        for name, value in weights.items()
    )
    raw = best["current_model_state"]  # what was averaged
    assert not all(torch.equal(value, raw[f"detector.{name}"]) for name, value in weights.items())


def test_a_stopped_training_goes_on_where_it_was(store, here, capsys):
    assert run(["fit", *QUICK, *options(store)]) == 0
    log = here / "runs" / "fit" / "version_0"
    last = log / "checkpoints" / "last.ckpt"
    resumed = options(store, "--ckpt_path", str(last), "--bundle", "mine", epochs=2)
    assert run(["fit", *QUICK, *resumed, "--model.trained", "norms"]) == 2
    assert "the checkpoint's run trained" in capsys.readouterr().err
    assert run(["fit", *QUICK, *resumed]) == 0
    epochs = [row["epoch"] for row in rows(here / "runs" / "fit" / "version_2")]
    assert set(epochs) == {"1"}  # the first was not trained again
    assert load_bundle(here / "mine")
    state = torch.load(last, weights_only=True)  # of the second epoch: the same folder went on
    assert state["epoch"] == 1
    (kept,) = [value for value in state["callbacks"].values() if value.get("monitor")]
    (before,) = [row for row in rows(log) if row["val/frame_accuracy"]]
    assert float(kept["best_model_score"]) >= float(before["val/frame_accuracy"])


def test_a_resumed_epoch_has_its_own_faces(store, here):
    """Those that it would have had without a stop: with a learning rate of 0, the loss tells."""
    still = [*QUICK, "--model.optimizer", "SGD", "--model.optimizer.lr", "0", "--model.dropout"]
    still += ["0", "--data.augment", "false", "--data.faces_per_epoch", "8", "--data.seed", "1"]

    def losses(version: int) -> dict[str, float]:
        found = rows(here / "runs/fit" / f"version_{version}")
        return {row["epoch"]: float(row["train/loss"]) for row in found if row["train/loss"]}

    still += ["--data.workers", "1"]  # which fetches faces before they are asked for
    assert run(["fit", *options(store, *still, epochs=3)]) == 0
    assert run(["fit", *options(store, *still)]) == 0
    last = here / "runs/fit/version_1/checkpoints/last.ckpt"
    assert run(["fit", *options(store, *still, "--ckpt_path", str(last), epochs=3)]) == 0
    whole, first, resumed = map(losses, range(3))
    assert first | resumed == pytest.approx(whole, abs=1e-6)
    assert len({round(loss, 5) for loss in whole.values()}) == 3  # other faces each time


def test_no_epoch_is_lost_when_a_training_is_killed(store, here):
    """Also where later epochs are no better, which with a learning rate of 0 is most of them."""
    still = [*QUICK, "--model.optimizer", "SGD", "--model.optimizer.lr", "0"]
    last = here / "runs/fit/version_0/checkpoints/last.ckpt"
    process = start_module([*still, *options(store, epochs=100)], here)
    try:
        while not last.is_file() or epoch_of(last) < 3:
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.2)
    finally:
        process.kill()
        process.communicate()
    reached = epoch_of(last)
    resumed = options(store, "--ckpt_path", str(last), epochs=reached + 2)
    assert run(["fit", *still, *resumed]) == 0
    assert {row["epoch"] for row in rows(here / "runs/fit/version_1")} == {str(reached + 1)}
    assert epoch_of(last) == reached + 1
    (member,) = load_bundle(here / "runs/fit/version_1/bundle")
    (best,) = last.parent.glob("epoch=*.ckpt")
    assert best.stem == f"epoch={member.training['epoch']:03d}"


class Agreement(Callback):
    """Fails where processes that train together do not hold the same weights."""

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert trainer.world_size == 2
        assert all(value.requires_grad for value in pl_module.parameters())
        flat = torch.cat([value.detach().flatten() for value in pl_module.parameters()])
        ours, theirs = trainer.strategy.all_gather(flat)
        torch.testing.assert_close(ours, theirs, rtol=0.0, atol=0.0)


def test_two_processes_train_as_one_and_count_each_face_once(store, here):
    """DDP over gloo, the head first, with a validation part that does not divide by two."""
    save_file(timm.create_model("mobilenetv3_small_050").state_dict(), "start.safetensors")
    head_first = {"class_path": "deepregions.detectors.HeadFirst", "init_args": {"epochs": 1}}
    Path("head.yaml").write_text(json.dumps({"trainer": {"callbacks": [head_first]}}))
    begun = [*QUICK, "--model.backbone_file", "start.safetensors", "--config", "head.yaml"]
    begun += options(store, "--trainer.accelerator", "cpu", epochs=2)
    chosen = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
    process = start_module([*begun, *chosen, f"--trainer.callbacks+={__name__}.Agreement"], here)
    out, error = process.communicate()
    assert process.returncode == 0, error
    assert out.count("bundle: ") == 1
    log = here / "runs" / "fit" / "version_0"
    (member,) = load_bundle(log / "bundle")
    again = ["--ckpt_path", str(log / "checkpoints" / "last.ckpt"), "--trainer.devices", "1"]
    assert run(["fit", *begun, *again]) == 0
    (same,) = load_bundle(here / "runs" / "fit" / "version_1" / "bundle")
    assert same.training["validation"] == pytest.approx(member.training["validation"], abs=1e-4)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([*QUICK, "--data.store", "nowhere"], 1, "deepregions prepare"),
        ([*QUICK, "--data.region", "all"], 2, "one region at a time"),
        ([*QUICK, "--data.region", "ear"], 2, "entire, eyes, nose, mouth, rest"),
        (["--model", "Backbone", "--model.frozen_stages", "1"], 2, "args.frozen_stages 0"),
        # The paper's recipe trains the head first, which needs pretrained features.
        (["-c", "xception.yaml", "--model.init_args.pretrained", "false"], 2, "callbacks null"),
    ],
)
def test_what_cannot_be_trained_is_refused_and_leaves_nothing_behind(
    words, code, message, store, here, capsys
):
    assert run(["fit", *options(store), *words]) == code
    assert message in capsys.readouterr().err
    assert not list(here.iterdir())


def test_a_bundle_that_training_will_replace_is_named(store, here, capsys):
    (here / "own").mkdir()
    (here / "own" / "bundle.json").touch()
    words = [*QUICK, "--bundle", "own", "--ckpt_path", "nowhere.ckpt"]
    assert run(["fit", *options(store), *words]) != 0
    assert "own: there is a bundle already" in capsys.readouterr().err


class Dropping:
    """Is told to end where Python drops exceptions."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


class Ender(Callback):
    """Ends its process, or asks for it where Python drops the exception that follows."""

    def __init__(self, dropped: bool) -> None:
        self.dropped = dropped

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch and self.dropped:
            Dropping()
        elif trainer.current_epoch:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("dropped", [False, True])
def test_sigterm_is_one_line_and_its_code(dropped, store, here, capsys):
    callback = {"class_path": f"{__name__}.Ender", "init_args": {"dropped": dropped}}
    Path("end.yaml").write_text(json.dumps({"trainer": {"callbacks": [callback]}}))
    quiet = ["--trainer.logger", "false", "--config", "end.yaml"]
    assert run(["fit", *QUICK, *quiet, *options(store, epochs=1000)]) == 143
    error = capsys.readouterr().err
    assert error.splitlines()[-1] == "deepregions: terminated"
    assert "Traceback" not in error
    assert list(here.glob("**/*.ckpt"))


def test_a_full_disk_leaves_no_half_checkpoint(store, here, capsys):
    """A limit on a file's size fails as a full disk does: in the middle of writing."""
    import resource

    earlier = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, earlier[1]))
    try:
        assert run(["fit", *QUICK, *options(store)]) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, earlier)
    assert "epoch=000.ckpt: File too large" in capsys.readouterr().err
    assert not list(here.glob("**/*.ckpt"))
