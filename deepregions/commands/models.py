"""``deepregions models``: the bundles that are here, what others offer, and their digests."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepregions.commands import checks
from deepregions.commands.options import check_stores, check_there
from deepregions.errors import BundleError, DeepregionsError, UsageError, printable
from deepregions.people import too_few

if TYPE_CHECKING:
    from deepregions.weights.bundle_folder import BundleEntry
    from deepregions.weights.catalogue import Entry


_FACTS = ("trained_on_kind", "limits", "operating_points", "degradation", "recipe")


def list_models(*, dir: Path | None = None, json: bool = False) -> None:
    """Lists the bundles that are here, and what others offer.

    The bundle that comes with deepregions, which is used where none is named, is first.

    Args:
        dir: A folder of bundles; by default $DEEPREGIONS_MODELS, or else ./models and ./bundles.
        json: Print JSON instead of tables.
    """
    from deepregions.weights.bundle_folder import (
        default_bundle,
        find_bundle,
        find_bundles,
        models_folders,
    )
    from deepregions.weights.catalogue import entries

    folders = models_folders(dir)
    found = find_bundles(folders)
    if dir is None and (default := default_bundle()):
        found = [find_bundle(str(default), []), *found]
    if json:
        bundles = [_bundle_facts(each) for each in found]
        checks.print_json({"bundles": bundles, "registry": [*map(_entry_facts, entries())]})
        return
    if found:
        heads = ("bundle", "networks", "detectors", "regions", "trained on", "fusion", "calibrated")
        rows = [_bundle_row(each) for each in found]
        checks.print_table((*heads, "MB"), rows, right={"networks", "MB"})
    else:
        where = ", ".join(map(str, folders)) or "./models or ./bundles"
        sys.stdout.write(f"There are no bundles in {where} (--dir DIR names another folder).\n")
    for each in found:
        if each.problem:
            sys.stderr.write(f"deepregions: {printable(each.problem)}\n")
    offers = []
    for entry in entries():
        how = "takes a browser" if entry.url is None else "yes"
        how = "is here" if _entry_facts(entry)["cached"] else how
        offers.append((entry.name, entry.kind, entry.title, how))
    checks.print_table(("offered by others", "kind", "what", "to fetch"), offers)


def show_model(name: str, *, dir: Path | None = None, json: bool = False) -> None:
    """Shows what a bundle was trained on, its input, licence, digests and source.

    For something that others offer, shows what is known about it.

    Args:
        name: A bundle's path, its name, the name of a network in it, hf://OWNER/NAME, or a name
            that `deepregions models list` shows.
        dir: A folder of bundles; by default $DEEPREGIONS_MODELS, or else ./models and ./bundles.
        json: Print JSON instead of lines.
    """
    from deepregions.weights import catalogue
    from deepregions.weights.bundle_folder import find_bundle, models_folders

    offered = {each.name: each for each in catalogue.entries()}
    if name in offered:
        facts = _entry_facts(offered[name])
    else:
        found = find_bundle(_local(name), models_folders(dir))
        if found.problem:
            raise BundleError(found.problem)
        facts = _bundle_facts(found)
    _print_facts(facts, json)


def verify_models(
    target: str | None = None,
    *,
    dir: Path | None = None,
    faces: list[Path] | bool | None = None,
    record: bool = False,
    json: bool = False,
) -> int:
    """Checks that every network loads and matches its SHA-256; exits with 1 if one does not.

    A bundle's graph must be of the bundle as it is. With --faces, each network also scores a few
    faces. It fails if its scores are all alike (near 0, near 1) or not numbers; a bundle fails if
    its fused log-odds of the faces that come along are not those recorded in it, and its graph if
    they are not those of the networks.

    Args:
        target: A bundle as for `deepregions models show`, or a folder of bundles; all bundles
            by default.
        dir: A folder of bundles; by default $DEEPREGIONS_MODELS, or else ./models and ./bundles.
        faces: Also score these photographs, or faces of this face store; without a value, a
            portrait that comes along, forged copies of it, and a compressed one.
        record: With --faces without a value, write the log-odds into the bundle.
        json: Print JSON instead of lines.
    """
    from deepregions.weights.bundle_folder import find_bundle, find_bundles, models_folders

    target = None if target is None else _local(target)
    if target is None:
        found = find_bundles(models_folders(dir))
    elif Path(target).is_dir():
        found = find_bundles([Path(target)])
    else:
        found = [find_bundle(target, models_folders(dir))]
    if not found:
        raise UsageError("there is no bundle to verify", "name one, or a folder that holds some")
    if record and faces != []:
        raise UsageError("--record is for the faces that come along", "--faces without a value")

    from deepregions.weights.bundle import check_bundle

    results: list[dict[str, Any]] = []
    for each in checks.progress(found, "verifying"):
        files = {"bundle.json": each.problem} if each.problem else check_bundle(each.path)
        for file, problem in {**files, **_check_graph(each)}.items():
            results.append({"file": str(each.path / file), "ok": not problem, "problem": problem})
            if not json:
                checks.print_lines(f"{each.path / file}: {problem or 'ok'}")
        if isinstance(faces, list) and not any(files.values()):
            results += _score_faces(each.path, faces, record=record, quiet=json)
    if json:
        checks.print_json(results)
    return 0 if all(result["ok"] for result in results) else 1


def _check_graph(entry: BundleEntry) -> dict[str, str]:
    """Returns what is wrong with a bundle's graph by its file, nothing where there is none."""
    from deepregions.deploy.bundle_graph import read_graph
    from deepregions.weights.manifest import GRAPH

    if entry.problem or not (entry.path / GRAPH).is_file():
        return {}
    try:
        read_graph(entry.path)
    except DeepregionsError as error:
        return {GRAPH: str(error)}
    return {GRAPH: ""}


def _score_faces(
    path: Path, faces: Sequence[Path], *, record: bool, quiet: bool
) -> Iterator[dict[str, Any]]:
    from deepregions.data.store import FaceStore
    from deepregions.deploy.bundle_graph import is_current
    from deepregions.evaluation import known_faces
    from deepregions.media import find_media
    from deepregions.weights.bundle import load_bundle, write_facts
    from deepregions.weights.manifest import GRAPH

    bundle = load_bundle(path)
    if not faces:
        answers = known_faces.known_answers(bundle)
    elif all((each / "store.json").is_file() for each in faces):
        answers = known_faces.store_answers(bundle, FaceStore(*faces))
    else:
        answers = known_faces.photo_answers(bundle, find_media(faces))
    found = known_faces.network_scores(answers)
    problems = {name: known_faces.doubt(scores) for name, scores in found.items()}
    if not faces and not record and bundle.facts.answers:
        problems["recorded answers"] = "; ".join(
            known_faces.deviations(answers, bundle.facts.answers)
        )
    if not faces and not record and (path / GRAPH).is_file() and is_current(path):
        networks = known_faces.fused_log_odds(answers)
        by_graph = known_faces.known_answers(path)
        problems[GRAPH] = "; ".join(known_faces.deviations(by_graph, networks))
    for name, problem in problems.items():
        scores = found.get(name, {})
        if not quiet:
            spread = f"{min(scores.values()):.3f} to {max(scores.values()):.3f}" if scores else ""
            said = f"ok, {len(scores)} faces, {spread}" if scores else "ok"
            checks.print_lines(f"{path}, {name}: {problem or said}")
        known = {key: value for key, value in scores.items() if not math.isnan(value)}
        yield {"network": name, "ok": not problem, "problem": problem, "scores": known}
    if record and not any(problems.values()):
        log_odds = {key: round(v, 6) for key, v in known_faces.fused_log_odds(answers).items()}
        write_facts(path, replace(bundle.facts, answers=log_odds))


def measure_robustness(
    bundle: str,
    *,
    store: list[Path],
    faces: int = 600,
    device: str = "auto",
    batch_size: int = 32,
    seed: int = 0,
) -> None:
    """Measures a bundle's errors on small, compressed and blurred faces, and records them in it.

    Where errors rise by more than chance, `deepregions detect` warns about such faces. At least
    one store needs genuine and fake faces in its evaluation part (split test); for false alarms,
    the genuine faces of all stores count. Exits with 4 if genuine or fake faces are missing.

    Args:
        bundle: The bundle's folder.
        store: Face stores of people whom the bundle was not trained on.
        faces: How many faces of each store are scored at most, one a video.
        device: auto, cpu, cuda or cuda:N.
        batch_size: Number of faces scored at once.
        seed: Random seed of the draw and the bootstrap.
    """
    folder = Path(bundle)
    check_there(folder)
    check_stores(*store)
    checks.positive(faces=faces, batch_size=batch_size)

    from deepregions.data.store import FaceStore
    from deepregions.evaluation.degradation import measure_degradation
    from deepregions.weights.bundle import load_bundle, write_facts

    loaded = load_bundle(folder)
    with checks.counted("scoring") as show:
        found = measure_degradation(
            loaded,
            [FaceStore(path) for path in store],
            faces=faces,
            device=device,
            batch_size=batch_size,
            seed=seed,
            progress=show,
        )
    write_facts(folder, replace(loaded.facts, degradation=found))
    rows = []
    for each in found:
        alarms = each.false_positive_rate
        name = f"{each.alteration} {each.level:g}" if each.level is not None else "as they are"
        worse = "worse" if each.worse else ""
        rate = "-" if alarms is None else f"{alarms:.1%}"
        rows.append((name, f"{each.auc:.3f}", rate, str(each.people), worse))
    checks.print_table(("faces", "AUC", "false alarms", "people", ""), rows, right={"people"})
    if why := too_few(min(each.people for each in found)):
        checks.warn(f"nothing counts as worse where there is no interval: {why}")
    checks.print_lines(f"bundle: {folder}")


def fetch_model(
    name: str, *, dir: Path | None = None, sha256: str | None = None, json: bool = False
) -> None:
    """Downloads a bundle hf://OWNER/NAME, or a file that others offer.

    A file's SHA-256 must be the one that is known here. If none is known, the file is kept as it
    came, and its SHA-256 is printed.

    Args:
        name: hf://OWNER/NAME, or a name that `deepregions models list` shows.
        dir: The folder for the file; the cache folder by default.
        sha256: The SHA-256 that the file must have.
        json: Print JSON instead of lines.
    """
    from deepregions import files
    from deepregions.assets import fetch
    from deepregions.weights import catalogue
    from deepregions.weights.hub import hub_name

    if hub_name(name) is not None:
        _print_facts({"path": _local(name)}, json)
        return
    entry = catalogue.entry(name)
    asset = catalogue.asset(entry, sha256)
    with _downloading(asset.name) as progress:
        path = fetch(asset, folder=dir, progress=progress)
    facts = {"path": str(path), "sha256": files.sha256(path), "license": entry.license}
    _print_facts(facts | {"citation": entry.citation, "use": entry.use}, json)
    if not asset.sha256:
        sys.stderr.write(f"deepregions: {name} came unchecked: its SHA-256 was not known here\n")


def push_bundle(folder: Path, repository: str, *, private: bool = False) -> None:
    """Uploads a bundle to the Hugging Face Hub.

    The bundle is loaded first, so that nothing broken is published; then bundle.json, the weights
    and the model card (README.md) become one commit. Read the card first: others will. The token
    is that of huggingface_hub: `hf auth login`, or HF_TOKEN. Others can then use the bundle as
    hf://OWNER/NAME.

    Args:
        folder: The bundle's folder.
        repository: OWNER/NAME; created if it does not exist.
        private: Make a new repository private.
    """
    check_there(folder)

    from deepregions.weights.bundle import load_bundle
    from deepregions.weights.hub import push

    load_bundle(folder)
    sys.stdout.write(f"{push(folder, repository, private=private)}\n")


def _local(name: str) -> str:
    """Returns the path of a bundle that comes along, or, downloaded, of one on the Hub."""
    from deepregions.weights.bundle_folder import default_bundle, models_folders
    from deepregions.weights.hub import download, hub_name

    default = default_bundle()
    if default and name == default.name:
        here = any((folder / name).exists() for folder in (Path(), *models_folders()))
        return name if here else str(default)
    on_hub = hub_name(name)
    return name if on_hub is None else str(download(on_hub))


@contextmanager
def _downloading(what: str) -> Iterator[Callable[[int, int | None], None]]:
    """Yields what shows a download on standard error, if that is a terminal."""
    from rich.progress import BarColumn, DownloadColumn, TransferSpeedColumn

    columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with checks.progress_bar(*columns) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _bundle_facts(found: BundleEntry) -> dict[str, Any]:
    return {
        "bundle": found.name,
        "path": str(found.path),
        "problem": found.problem,
        "written_by": f"deepregions {found.manifest.get('deepregions', '')}".strip(),
        "version": found.manifest.get("version"),
        "members": found.members,
        "fusion": found.manifest.get("fusion"),
        "calibration": found.manifest.get("calibration"),
        **{key: found.manifest.get(key) for key in _FACTS},
        "people": len(found.manifest.get("people") or ()),
    }


def _entry_facts(entry: Entry) -> dict[str, Any]:
    from deepregions.assets import cache_dir

    path = cache_dir() / entry.file
    return asdict(entry) | {"cached": str(path) if path.is_file() else None}


def _bundle_row(found: BundleEntry) -> Sequence[str]:
    members = found.members
    columns = [
        [
            str(member.get("name", "?")).removesuffix(
                f"_{member.get('region')}.{member.get('database')}"
            )
            for member in members
        ],
        *([str(member.get(key, "?")) for member in members] for key in ("region", "database")),
    ]
    parts = []
    for entry, key, without in (("fusion", "class", "mean"), ("calibration", "kind", "no")):
        part = found.manifest.get(entry)
        parts.append(str(part.get(key, "?")) if isinstance(part, dict) else without)
    size = sum(file.stat().st_size for file in found.path.glob("*.safetensors")) / 1e6
    return (
        found.name,
        "broken" if found.problem else str(len(members)),
        *(", ".join(dict.fromkeys(column)) for column in columns),
        *parts,
        f"{size:.0f}",
    )


def _print_facts(facts: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        checks.print_json(facts)
    else:
        sys.stdout.writelines(f"{line}\n" for line in _lines(facts))


def _lines(value: Any, name: str = "") -> Iterator[str]:
    """Writes nested JSON values as ``a.b: value`` lines; what is empty is left out."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _lines(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from _lines(inner, f"{name}[{number}]")
    elif value not in (None, ""):
        yield printable(f"{name}: {value}")
