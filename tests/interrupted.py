"""Prepares a folder again and again, killed at random moments, until it is done (a program).

Everything is imported once and a child is forked for each attempt, as starting Python takes longer
than the work. Prints how many attempts were killed.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

from test_prepare import SlowDetector

from deepregions.data import prepare as module
from deepregions.data.databases import FaceForensics


def main(root: str, out: str, seed: str, kills: str) -> None:
    rng = random.Random(int(seed))
    killed = 0
    while True:
        child = os.fork()
        if not child:
            module._FACES_PER_SHARD = 4
            module.prepare(
                FaceForensics(Path(root)), Path(out), detector=SlowDetector(), frames_per_video=4
            )
            os._exit(0)
        if killed < int(kills):
            time.sleep(rng.uniform(0, 0.8))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            break
        killed += 1
        for leftover in Path(out).glob("*.arrow*"):  # whole, or not there
            assert not leftover.name.startswith("shard") or leftover.stat().st_size > 0
    assert os.WEXITSTATUS(status) == 0
    sys.stdout.write(f"{killed}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
