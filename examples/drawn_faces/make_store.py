"""Writes a face store of drawn people: ``python examples/drawn_faces/make_store.py --out DIR``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from drawn_faces import write_drawn_store


def main() -> None:
    """Reads the command line and writes the store."""
    parser = argparse.ArgumentParser(description="Writes a face store of drawn people.")
    parser.add_argument("--out", type=Path, required=True, help="the store's folder")
    parser.add_argument("--count", type=int, default=600, help="faces in all; half are manipulated")
    parser.add_argument("--seed", type=int, default=0, help="which people")
    options = parser.parse_args()
    write_drawn_store(options.out, options.count, options.seed)


if __name__ == "__main__":
    main()
