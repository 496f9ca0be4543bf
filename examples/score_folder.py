"""Scores all photographs and videos below a folder: python examples/score_folder.py FOLDER."""

import sys
from pathlib import Path

import deepregions


def main(folder: Path) -> None:
    """Prints a line for each file as it is finished; however many there are, memory stays flat."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    with deepregions.load(pictures=False) as detector:
        for result in detector.each(files):
            evidence = result.evidence
            ratio = "" if evidence is None else f"{evidence.ratio:.3g}"
            print(result.input, result.status, result.score, ratio, result.conclusion, sep="\t")  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]))
