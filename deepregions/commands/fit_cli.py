"""The LightningCLI behind ``deepregions fit``, which takes seconds to import."""

import io
import json
import logging
import math
import re
import sys
from argparse import ArgumentError
from collections.abc import Sequence
from itertools import compress
from pathlib import Path, PurePath
from typing import Any

import torch
import yaml
from lightning_fabric.plugins import TorchCheckpointIO
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import Callback, ModelCheckpoint, RichProgressBar, WeightAveraging
from pytorch_lightning.cli import ArgsType, LightningArgumentParser, LightningCLI
from pytorch_lightning.utilities.exceptions import SIGTERMException

from deepregions.commands.cli import Terminated
from deepregions.data.datamodule import RegionDataModule
from deepregions.data.forged_store import made_here
from deepregions.data.store import FaceStore
from deepregions.detectors import RegionDetector
from deepregions.detectors.finetuning import HeadFirst
from deepregions.detectors.training import DetectorTraining, suited_precision
from deepregions.errors import DeepregionsError, UsageError, printable
from deepregions.files import atomic_file
from deepregions.people import fingerprints
from deepregions.system import TrainedNetwork
from deepregions.types import FAKE, Region
from deepregions.weights.bundle import save_bundle
from deepregions.weights.manifest import MANIFEST, BundleFacts, Kind

_RUNS = "runs"  # below the current folder, unless --trainer.default_root_dir says where


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints that appear whole or not at all, on a full disk too, which Lightning's do not."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Writes one; what it raises names its path."""
        if "://" in str(path):  # a file system of fsspec
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        with atomic_file(Path(path)) as partial, partial.open("wb") as stream:
            buffer = io.BytesIO()  # torch.save into a full disk raises no OSError
            torch.save(checkpoint, buffer)
            stream.write(buffer.getbuffer())


class FitCLI(LightningCLI):
    """LightningCLI with this package's defaults, which writes a bundle after fitting."""

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds what trainer, detector and datamodule take; a detector is no LightningModule."""
        parser.add_lightning_class_args(self.trainer_class, "trainer")
        defaults = {f"trainer.{key}": value for key, value in self.trainer_defaults.items()}
        defaults.pop("trainer.callbacks")  # Lightning adds these to those of the user
        parser.set_defaults(defaults)
        parser.add_subclass_arguments(RegionDetector, "model", fail_untyped=False, required=True)
        parser.add_lightning_class_args(RegionDataModule, "data")

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds ``--bundle``, and gives the datamodule the detector's input size."""
        parser.add_argument(
            "--bundle",
            type=str | None,
            default=None,
            help="Folder for the bundle; by default, `bundle` in the run's log folder.",
        )
        parser.link_arguments("model.init_args.size", "data.size")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parses the arguments that :func:`fit` was given (those of the process may be others)."""
        self._parser("fit").prog = "deepregions fit"  # not python's module
        try:
            self.config = parser.parse_args(args)  # type: ignore[arg-type]  # a list, see fit()
        except ArgumentError as error:
            message = _plain(str(error.message))
            if 'Parser key "model"' in message or "required: fit.model" in message:
                known = ", ".join(detector.__name__ for detector in RegionDetector.__subclasses__())
                hint = f"--model is one of {known}, or a class path; or use --config configs/..."
            else:
                hint = "see deepregions fit --help"
            raise UsageError(message, hint) from error
        self._words = [*args] if isinstance(args, list) else []
        trainer = self.config.fit.trainer
        if trainer.default_root_dir is not None and isinstance(trainer.logger, list):
            for logger in trainer.logger:
                if logger.init_args.get("save_dir") == _RUNS:
                    logger.init_args.save_dir = str(trainer.default_root_dir)
        suited = suited_precision(str(trainer.precision), str(trainer.accelerator))
        if suited != str(trainer.precision):
            trainer.precision = suited
            sys.stderr.write("deepregions: this CPU only emulates bfloat16: training in float32\n")

    def instantiate_classes(self) -> None:
        """Makes trainer, detector and datamodule.

        Raises:
            DeepregionsError: One of them refuses its arguments, or has no weights to start from.
            UsageError: The trainer does.
        """
        try:
            super().instantiate_classes()
            self.model = DetectorTraining(self.model)
        except ValueError as error:  # jsonargparse's, around what went wrong
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, DeepregionsError):
                cause = cause.__cause__
            raise cause or error from error
        except MisconfigurationException as error:
            raise UsageError(_plain(str(error)), "see deepregions fit --help") from error

    def before_fit(self) -> None:
        """Refuses what can only fail after hours; lets a resumed run remember its best epoch."""
        if self.datamodule.region == "all":
            raise UsageError("fit trains one region at a time", f"one of {', '.join(Region)}")
        settings = self.config.fit.model.init_args
        begun = settings.get("pretrained", True) or settings.get("backbone_file")
        callbacks: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        freezes = {  # and what leaves it out
            "HeadFirst": (
                any(isinstance(each, HeadFirst) and each.epochs for each in callbacks),
                "--trainer.callbacks null",
            ),
            "frozen_stages": (
                settings.get("frozen_stages"),
                "--model.init_args.frozen_stages 0",
            ),
            "trained": (settings.get("trained", "all") != "all", "--model.init_args.trained all"),
        }
        what = next((name for name, (asked, _) in freezes.items() if asked), "")
        if what and not begun and not self.config.fit.ckpt_path:
            raise UsageError(
                f"{what} would train {type(self.model.detector).__name__} on random features",
                "--model.init_args.pretrained true or a backbone_file, or leave it out with "
                f"{freezes[what][1]}",
            )
        if self.config.fit.bundle and (Path(self.config.fit.bundle) / MANIFEST).is_file():
            said = "there is a bundle already: it is replaced when this training ends"
            sys.stderr.write(f"deepregions: {printable(str(self.config.fit.bundle))}: {said}\n")
        if isinstance(self.trainer.strategy.checkpoint_io, TorchCheckpointIO):
            self.trainer.strategy.checkpoint_io = AtomicCheckpointIO()
        self.datamodule.setup("fit")  # a store that will not do is refused before logs are begun
        resumed, log_dir = self.config.fit.ckpt_path, self.trainer.log_dir
        for checkpoint in self.trainer.checkpoint_callbacks:
            if isinstance(checkpoint, ModelCheckpoint) and not checkpoint.dirpath and log_dir:
                folder = Path(log_dir) / "checkpoints"
                if resumed and Path(resumed).is_file():
                    folder = Path(resumed).parent
                # Resolved, or Lightning takes it for another folder.
                checkpoint.dirpath = str(folder.resolve())

    def after_fit(self) -> None:
        """Writes the best epoch's network as a bundle, with its validation figures."""
        checkpoint = self.trainer.checkpoint_callback
        best = checkpoint.best_model_path if isinstance(checkpoint, ModelCheckpoint) else ""
        if not best:
            sys.stderr.write("deepregions: no checkpoint was written, so no bundle either\n")
            return
        path = Path(self.config.fit.bundle or Path(self.trainer.log_dir or ".") / "bundle")
        self.trainer.loggers = []  # the curves end with the training
        # What averages weights would validate the last average again, not the best one's.
        callbacks: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        callbacks[:] = [each for each in callbacks if not isinstance(each, WeightAveraging)]
        self.trainer.validate(
            self.model, self.datamodule, ckpt_path=best, verbose=False, weights_only=True
        )
        if self.trainer.is_global_zero:
            self._write_bundle(Path(best), path)

    def _write_bundle(self, best: Path, path: Path) -> None:
        figures = {
            name.removeprefix("val/"): None if math.isnan(value) else round(float(value), 6)
            for name, value in self.trainer.callback_metrics.items()
            if name.startswith("val/")
        }
        info, forging = self.datamodule.store.info, self.datamodule.forging
        epoch = int(torch.load(best, map_location="cpu", mmap=True, weights_only=True)["epoch"])
        training = {
            "store": self.datamodule.store.fingerprint,
            "landmarks": {"name": info.landmarks, "version": info.landmarks_version},
            "epoch": epoch,
            "command": ["deepregions", *map(_portable, self._words)],
            "validation": figures,
            "seed": self.config.fit.seed_everything,
        }
        member = TrainedNetwork(
            detector=self.model.detector.cpu(),
            region=Region(self.datamodule.region),
            database=info.database,
            layout=self.datamodule.layout,
            training=training if forging is None else training | {"forge": forging.settings()},
        )
        save_bundle([member], path, facts=self._facts())
        shown = "  ".join(
            f"{name} {'undefined' if value is None else f'{value:.4f}'}"
            for name, value in figures.items()
        )
        sys.stdout.write(f"validation of epoch {epoch}: {shown}\nbundle: {path}\n")

    def _facts(self) -> BundleFacts:
        """What the bundle says of its training; paths of this machine are left out."""
        named = self.config.fit.data.store
        stores = [FaceStore(path) for path in ([named] if isinstance(named, str) else named)]
        people: set[str] = set()
        real = False
        for store in stores:
            rows = store.splits == "train"
            identities = compress(store.column("identities"), rows)
            people.update(fingerprints(store.info.database, identities))
            real |= bool((rows & (store.labels == FAKE) & ~made_here(store)).any())
        kind: Kind = "real" if real else "self-made"
        if any(store.info.landmarks == "drawn" for store in stores):
            kind = "drawn"
        dumped = self._parser("fit").dump(self.config.fit, skip_none=True)
        wanted = {"seed_everything", "data", "model", "trainer"}
        recipe = {key: _portable(v) for key, v in yaml.safe_load(dumped).items() if key in wanted}
        for key in ("logger", "default_root_dir", "devices", "num_nodes", "accelerator"):
            recipe["trainer"].pop(key, None)
        return BundleFacts(kind, recipe=recipe, people=tuple(sorted(people)))


def _portable(value: Any) -> Any:
    """A configuration or a word of a command line with files by their names alone."""
    if isinstance(value, dict):
        return {key: _portable(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_portable(each) for each in value]
    if not isinstance(value, str) or "/" not in value:
        return value
    if value[:1] in "[{":  # a list or a mapping as one word
        return json.dumps(_portable(yaml.safe_load(value)))
    name, equals, file = value.rpartition("=")
    return f"{name}{equals}{PurePath(file).name}"


def _plain(message: str) -> str:
    line = " ".join(message.split()).partition(" Given value type")[0]
    line = re.sub(r"- Expected a path but \S+ either not accessible or invalid ", "", line)
    line = line.removesuffix(" - Expected a <class 'NoneType'>")
    return re.sub(r"-? ?Does not validate against any .*? Errors: ", "", line)


def run_fit(argv: Sequence[str]) -> None:
    """Runs a training.

    Raises:
        DeepregionsError: A store, a file or an option is not as it should be.
    """
    # Lightning's recommendations of other products stay out of the output.
    logging.getLogger("pytorch_lightning.utilities.rank_zero").addFilter(
        lambda record: "Tip:" not in record.getMessage()
    )
    try:
        FitCLI(
            RegionDetector,  # type: ignore[arg-type]  # see instantiate_classes
            RegionDataModule,
            subclass_mode_model=True,
            auto_configure_optimizers=False,
            seed_everything_default=0,
            save_config_kwargs={"overwrite": True},
            trainer_defaults=_trainer_defaults(),
            parser_kwargs={"exit_on_error": False, "fit": {"exit_on_error": False}},
            args=["fit", *argv],
        )
    except SIGTERMException:  # our own was lost where Python drops exceptions, as in a finaliser
        raise Terminated from None
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):  # Lightning makes exit code 1 of it
            raise stop.__context__ from None
        raise


def _trainer_defaults() -> dict[str, Any]:
    # The first logger's folder also gets the checkpoints, the config and the bundle.
    loggers = (("CSVLogger", "fit"), ("TensorBoardLogger", "tensorboard"))
    return {
        "logger": [
            {
                "class_path": f"pytorch_lightning.loggers.{kind}",
                "init_args": {"save_dir": _RUNS, "name": name},
            }
            for kind, name in loggers
        ],
        "callbacks": [
            ModelCheckpoint(
                monitor="val/frame_accuracy",  # the paper's choice of epoch
                mode="max",
                filename="{epoch:03d}",
            ),
            # Not save_last=True, which skips every epoch that is not among the best (Lightning
            # 2.6): a training that is stopped would lose them.
            ModelCheckpoint(filename="last", enable_version_counter=False),
            RichProgressBar(leave=True, console_kwargs={"stderr": True}),
        ],
    }
