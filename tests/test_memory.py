"""A process's own memory is told, not that of the program that started it."""

import mmap
import subprocess
import sys

from potstill import memory

MIB = 2**20


def test_a_child_does_not_begin_with_the_memory_of_its_parent():
    with mmap.mmap(-1, 300 * MIB) as taken:
        for page in range(0, len(taken), mmap.PAGESIZE):
            taken[page] = 1
        assert memory.peak_bytes() > 300 * MIB
        program = "from potstill import memory; print(memory.peak_bytes())"
        told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 1 * MIB < int(told.stdout) < 100 * MIB
