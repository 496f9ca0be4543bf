"""Converts an Xception that was trained in Keras; see ``--help``."""

from __future__ import annotations

import sys

from deepregions.commands.cli import run_program
from deepregions.commands.convert_keras import convert_keras

if __name__ == "__main__":
    sys.exit(run_program(convert_keras, sys.argv[1:]))
