"""What is freed is used again: pages are not mapped anew for every array."""

import subprocess
import sys

import pytest

_SCRIPT = """
import resource, sys
from deepregions.memory import keep_freed
if sys.argv[1] == "kept":
    keep_freed()
for _ in range(50):
    for size in (1 << 20, 1 << 23, 1 << 26):
        b'x' * size
usage = resource.getrusage(resource.RUSAGE_SELF)
print(usage.ru_minflt, usage.ru_maxrss)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_freed_memory_is_used_again() -> None:
    def run(how: str) -> tuple[int, int]:
        told = subprocess.run(
            [sys.executable, "-c", _SCRIPT, how], capture_output=True, text=True, check=True
        )
        faults, resident = map(int, told.stdout.split())
        return faults, resident

    faults, resident = run("kept")
    faults_before, resident_before = run("left")
    assert faults < faults_before / 10
    assert resident < resident_before + (8 << 10)  # KiB
