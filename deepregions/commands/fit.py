"""``deepregions fit``: trains one detector on one region and writes a bundle."""

import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from deepregions.commands.cli import dispatch, find_config
from deepregions.commands.options import check_stores


def fit(argv: Sequence[str]) -> int:
    """Runs a training, by LightningCLI's options for fit; those of a fusion go to ``fuse``.

    Raises:
        DeepregionsError: A store, a file or an option is not as it should be.
    """
    if names_fusion(argv):
        sys.stderr.write("deepregions: fusions are now trained by deepregions fuse\n")
        return dispatch(["fuse", *argv])
    if not any(word.startswith("--print_config") for word in argv):
        check_stores(*_stores(argv))

    from deepregions.commands.fit_cli import run_fit

    run_fit(argv)
    return 0


def names_fusion(argv: Sequence[str]) -> bool:
    """Returns whether options, or a configuration file among them, have the key ``fusion``."""
    return any(word.partition("=")[0].split(".")[0] == "--fusion" for word in argv) or any(
        "fusion" in content for content in _configurations(argv)
    )


def _stores(argv: Sequence[str]) -> list[Path]:
    """The stores that options name; of several options, the last counts."""
    stores: Any = None
    for content in _configurations(argv):
        data = content.get("data")
        stores = data.get("store", stores) if isinstance(data, dict) else stores
    for name, value in _options(argv):
        stores = yaml.safe_load(value) if name == "--data.store" else stores
    named = stores if isinstance(stores, list) else [stores]
    return [Path(store) for store in named if isinstance(store, str)]


def _configurations(argv: Sequence[str]) -> Iterator[dict[str, Any]]:
    for name, value in _options(argv):
        if name in {"--config", "-c"}:
            try:
                content = yaml.safe_load(find_config(value).read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError, yaml.YAMLError):
                continue  # the parser says what is wrong
            if isinstance(content, dict):
                yield content


def _options(argv: Sequence[str]) -> Iterator[tuple[str, str]]:
    for word, after in pairwise([*argv, ""]):
        name, equals, value = word.partition("=")
        yield name, value if equals else after
