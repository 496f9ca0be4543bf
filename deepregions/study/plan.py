"""What a study consists of: databases, detectors, regions and seeds, and the steps they make."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from deepregions.errors import UsageError
from deepregions.types import REGIONS, Region

_PLAIN = re.compile(r"[\w.+-]{1,60}", re.ASCII)


@dataclass(frozen=True)
class DatabasePlan:
    """A database of the study.

    Attributes:
        database: As ``deepregions prepare --database`` has it.
        root: Where it is; none for ``toy``.
        name: What folders, tables and bundles call it; the database by default.
        options: Further options of ``deepregions prepare``.
        forge: Of a database of genuine faces only: the forgeries to evaluate with. Networks are
            then trained with the fakes that the detectors' configs make of it (``data.forge``).
        train: Whether networks are trained on it; else it is for evaluation only.
    """

    database: str
    root: str | None = None
    name: str | None = None
    options: list[str] = field(default_factory=list)
    forge: list[str] = field(default_factory=list)
    train: bool = True

    @property
    def title(self) -> str:
        """Its name."""
        return self.name or self.database


@dataclass(frozen=True)
class DetectorPlan:
    """A detector of the study.

    Attributes:
        config: Files for ``deepregions fit --config``, the later overriding the earlier.
        name: What folders call it; the last file's name by default.
        options: Further options of ``deepregions fit``.
    """

    config: list[str]
    name: str | None = None
    options: list[str] = field(default_factory=list)

    @property
    def title(self) -> str:
        """Its name."""
        return self.name or Path(self.config[-1]).stem


@dataclass(frozen=True)
class Step:
    """One command, run once.

    Attributes:
        name: Such as ``fit/seed-0/ffpp/xception-eyes``.
        command: The words after ``deepregions``.
        result: The folder that it writes, whole or not at all.
        mark: The file in it that is there when it is finished.
        after: Names of steps that must be finished before.
        logs: Where a training's checkpoints are, in ``version_N/checkpoints``.
        trains: Whether it trains: such steps run side by side, one a device.
    """

    name: str
    command: tuple[str, ...]
    result: Path
    mark: str
    after: tuple[str, ...] = ()
    logs: Path | None = None
    trains: bool = False

    @property
    def finished(self) -> bool:
        """Whether it has been done."""
        return (self.result / self.mark).is_file()

    @property
    def checkpoint(self) -> Path | None:
        """Where a training that was stopped goes on; None if there is nothing to go on with."""
        found = [] if self.logs is None else self.logs.glob("version_*/checkpoints/last.ckpt")
        return max(found, key=lambda path: path.stat().st_mtime, default=None)


@dataclass(frozen=True)
class Plan:
    """A study.

    Attributes:
        databases: Trained on and evaluated on.
        detectors: Trained on each region of each database.
        out: The folder of everything.
        regions: Which.
        seeds: Everything is trained once for each.
        evaluate: Further options of ``deepregions evaluate``.

    Raises:
        UsageError: Nothing to do, a name twice or one that is no file's, or an unknown region.
    """

    databases: Sequence[DatabasePlan]
    detectors: Sequence[DetectorPlan]
    out: Path
    regions: Sequence[str] = REGIONS
    seeds: Sequence[int] = (0,)
    evaluate: Sequence[str] = ()

    def __post_init__(self) -> None:
        for what, names in (
            ("databases", [each.title for each in self.databases]),
            ("detectors", [each.title for each in self.detectors]),
            ("regions", [str(each) for each in self.regions]),
            ("seeds", [str(each) for each in self.seeds]),
        ):
            if not names:
                raise UsageError(f"the plan has no {what}", "see configs/paper.yaml")
            if len(set(names)) < len(names):
                raise UsageError(f"{what} are named twice: {', '.join(names)}", "give each a name")
            odd = [name for name in names if not _PLAIN.fullmatch(name)]
            if odd:
                raise UsageError(f"{odd[0]!r} is no file's name", "letters, digits, _ . + -")
        unknown = [region for region in self.regions if region not in tuple(REGIONS)]
        if unknown:
            raise UsageError(f"unknown region {unknown[0]!r}", f"one of {', '.join(REGIONS)}")
        if not any(each.train for each in self.databases):
            raise UsageError("no database of the plan is trained on", "one needs train: true")

    def steps(self) -> Iterator[Step]:
        """Yields the steps, each after those that it needs."""
        for database in self.databases:
            yield from self._prepare(database)
        for seed in self.seeds:
            fits = [
                self._fit(seed, database, detector, Region(region))
                for database, detector, region in product(
                    self.databases, self.detectors, self.regions
                )
                if database.train
            ]
            yield from fits
            yield self._evaluate(seed, fits)

    def _store(self, database: DatabasePlan) -> Path:
        return self.out / "stores" / database.title

    def _prepare(self, database: DatabasePlan) -> Iterator[Step]:
        name, store = database.title, self._store(database)
        command = ["prepare", "--database", database.database, "--out", str(store)]
        if database.root is not None:
            command += ["--root", database.root]
        if database.database in ("folder", "csv", "deepfakebench"):
            command += ["--name", name]
        step = Step(f"prepare/{name}", (*command, *database.options), store, "store.json")
        yield step
        if database.forge:
            forged = store.with_name(f"{name}-forged")
            words = ("forge", "--store", str(store), "--out", str(forged), "--methods")
            yield Step(
                f"forge/{name}", (*words, *database.forge), forged, "store.json", (step.name,)
            )

    def _fit(
        self, seed: int, database: DatabasePlan, detector: DetectorPlan, region: Region
    ) -> Step:
        title = f"{detector.title}-{region}"
        bundle = self.out / "bundles" / f"seed-{seed}" / database.title / title
        logs = self.out / "fits" / f"seed-{seed}" / database.title
        logger = {
            "class_path": "pytorch_lightning.loggers.CSVLogger",
            "init_args": {"save_dir": str(logs), "name": title},
        }
        command = ["fit"]
        for config in detector.config:
            command += ["--config", config]
        command += ["--data.store", str(self._store(database)), "--data.region", str(region)]
        command += ["--seed_everything", str(seed), "--bundle", str(bundle)]
        command += ["--trainer.logger", json.dumps([logger])]
        return Step(
            name=f"fit/seed-{seed}/{database.title}/{title}",
            command=(*command, *detector.options),
            result=bundle,
            mark="bundle.json",
            after=(f"prepare/{database.title}",),
            logs=logs / title,
            trains=True,
        )

    def _evaluate(self, seed: int, fits: Sequence[Step]) -> Step:
        out = self.out / "evaluation" / f"seed-{seed}"
        command = ["evaluate", "--bundle", *(str(step.result) for step in fits), "--store"]
        needed = [step.name for step in fits]
        for database in self.databases:
            store = self._store(database)
            command.append(
                str(store.with_name(f"{store.name}-forged") if database.forge else store)
            )
            needed.append(f"{'forge' if database.forge else 'prepare'}/{database.title}")
        command += ["--out", str(out), *self.evaluate]
        return Step(f"evaluate/seed-{seed}", tuple(command), out, "index.html", tuple(needed))
