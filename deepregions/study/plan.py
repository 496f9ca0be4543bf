"""What a study consists of: databases, detectors, regions and seeds, and the steps they make."""

from __future__ import annotations

import json
import re
from argparse import ArgumentError
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser

from deepregions.errors import UsageError
from deepregions.types import REGIONS

_PLAIN = re.compile(r"[\w.+-]{1,60}", re.ASCII)


@dataclass(frozen=True)
class DatabasePlan:
    """A database of the study.

    Attributes:
        database: Its name for ``deepregions prepare --database``; ``store`` for a face store that
            is prepared already.
        root: Where it is.
        name: What folders, tables and bundles call it; the database's name by default.
        options: Further options of ``deepregions prepare``.
        forge: For a database of genuine faces only: the forgeries to evaluate with. Networks are
            then trained on the fakes that the detectors' configs make (``data.forge``).
        train: Whether networks are trained on it; otherwise it serves for evaluation only.
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

    @property
    def prepared_by(self) -> tuple[str, ...]:
        """The step that makes its store; none if the store is there."""
        return () if self.database == "store" else (f"prepare/{self.title}",)


@dataclass(frozen=True)
class DetectorPlan:
    """A detector of the study.

    Attributes:
        config: Files for ``deepregions fit --config``; later ones override earlier ones.
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
        mark: The file that is there when the step is finished, in the folder that it writes.
        after: Names of the steps that must be finished before.
        logs: Where a training's checkpoints are, in ``version_N/checkpoints``.
    """

    name: str
    command: tuple[str, ...]
    mark: Path
    after: tuple[str, ...] = ()
    logs: Path | None = None

    @property
    def finished(self) -> bool:
        """Whether it has been done."""
        return self.mark.is_file()

    @property
    def checkpoint(self) -> Path | None:
        """Where a training that was stopped continues; None if there is nothing to continue."""
        found = [] if self.logs is None else self.logs.glob("version_*/checkpoints/last.ckpt")
        return max(found, key=lambda path: path.stat().st_mtime, default=None)


@dataclass(frozen=True)
class Plan:
    """A study.

    Attributes:
        databases: Trained on and evaluated on.
        detectors: Trained on each region of each database.
        seeds: Everything is trained once for each.
        evaluate: Further options of ``deepregions evaluate``.

    Raises:
        UsageError: Nothing to do, a name twice or one that cannot name a file, an unknown region.
    """

    databases: list[DatabasePlan]
    detectors: list[DetectorPlan]
    out: Path
    regions: list[str] = field(default_factory=lambda: [*REGIONS])
    seeds: list[int] = field(default_factory=lambda: [0])
    evaluate: list[str] = field(default_factory=list)

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
                raise UsageError(f"{odd[0]!r} cannot name a file", "letters, digits, _ . + -")
        unknown = [region for region in self.regions if region not in tuple(REGIONS)]
        if unknown:
            raise UsageError(f"unknown region {unknown[0]!r}", f"one of {', '.join(REGIONS)}")
        if not any(each.train for each in self.databases):
            raise UsageError("no database of the plan is trained on", "one needs train: true")

    @classmethod
    def read(cls, path: Path, base: Path | None = None, **changes: Any) -> Plan:
        """Reads a plan from a YAML file; paths in it are relative to ``base``, or its folder.

        ``changes`` are attributes that replace those of the file.

        Raises:
            UsageError: The file cannot be read, or is no plan.
        """
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise UsageError(f"{path} cannot be read: {error}", "a YAML file") from error
        if isinstance(content, dict):
            content.pop("devices", None)  # an earlier version's
        parser = ArgumentParser(exit_on_error=False)
        parser.add_argument("--plan", type=cls)
        try:
            parsed = parser.parse_object({"plan": content})
        except ArgumentError as error:
            message = " ".join(str(error).split())
            raise UsageError(f"{path}: {message}", "see configs/paper.yaml") from error
        folder = base or path.absolute().parent

        def beside(name: str) -> str:  # `fit` finds the others, which are shipped
            return str(folder / name) if (folder / name).is_file() else name

        plan: Plan = parser.instantiate_classes(parsed).plan
        databases = [
            each if each.root is None else replace(each, root=str(folder / each.root))
            for each in plan.databases
        ]
        detectors = [replace(each, config=[*map(beside, each.config)]) for each in plan.detectors]
        own: dict[str, Any] = {
            "databases": databases,
            "detectors": detectors,
            "out": folder / plan.out,
        }
        return replace(plan, **(own | changes))

    def steps(self) -> Iterator[Step]:
        """Yields the steps, each after those that it needs."""
        for database in self.databases:
            yield from self._prepare(database)
        for seed in self.seeds:
            trained = [each for each in self.databases if each.train]
            fits = [
                self._fit(seed, *what) for what in product(trained, self.detectors, self.regions)
            ]
            yield from fits
            yield self._evaluate(seed, fits)

    def _store(self, database: DatabasePlan, *, forged: bool = False) -> Path:
        if database.database == "store" and database.root is not None and not forged:
            return Path(database.root)
        return self.out / "stores" / (database.title + ("-forged" if forged else ""))

    def _prepare(self, database: DatabasePlan) -> Iterator[Step]:
        store = self._store(database)
        if database.database != "store":
            command = ["prepare", "--database", database.database, "--out", str(store)]
            if database.root is not None:
                command += ["--root", database.root]
            if database.database in ("folder", "csv", "deepfakebench"):
                command += ["--name", database.title]
            (name,) = database.prepared_by
            yield Step(name, (*command, *database.options), store / "store.json")
        if database.forge:
            forged = self._store(database, forged=True)
            words = ("forge", "--store", str(store), "--out", str(forged), "--methods")
            mark, after = forged / "store.json", database.prepared_by
            yield Step(f"forge/{database.title}", (*words, *database.forge), mark, after)

    def _fit(self, seed: int, database: DatabasePlan, detector: DetectorPlan, region: str) -> Step:
        title = f"{detector.title}-{region}"
        bundle = self.out / "bundles" / f"seed-{seed}" / database.title / title
        logs = self.out / "fits" / f"seed-{seed}" / database.title
        logger = {
            "class_path": "pytorch_lightning.loggers.CSVLogger",
            "init_args": {"save_dir": str(logs), "name": title},
        }
        command = ["fit", *(word for config in detector.config for word in ("--config", config))]
        command += ["--data.store", str(self._store(database)), "--data.region", region]
        command += ["--seed_everything", str(seed), "--bundle", str(bundle)]
        command += ["--trainer.logger", json.dumps([logger])]
        return Step(
            name=f"fit/seed-{seed}/{database.title}/{title}",
            command=(*command, *detector.options),
            mark=bundle / "bundle.json",
            after=database.prepared_by,
            logs=logs / title,
        )

    def _evaluate(self, seed: int, fits: Sequence[Step]) -> Step:
        out = self.out / "evaluation" / f"seed-{seed}"
        bundles = [str(step.mark.parent) for step in fits]
        stores = [str(self._store(each, forged=bool(each.forge))) for each in self.databases]
        after = [step.name for step in fits]
        for each in self.databases:
            after += [f"forge/{each.title}"] if each.forge else each.prepared_by
        command = ("evaluate", "--bundle", *bundles, "--store", *stores, "--out", str(out))
        name, mark = f"evaluate/seed-{seed}", out / "index.html"
        return Step(name, (*command, *self.evaluate), mark, tuple(after))
