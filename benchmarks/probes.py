"""What this machine can do at most, measured in the process of the benchmark: shares of it mean more than times.

The probes are C (`probes.c`), compiled when first needed: no call of torch comes near either limit.
"""

from __future__ import annotations

import ctypes
import functools
import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from machine import last_level_cache_bytes

SOURCE = Path(__file__).with_name("probes.c")
STREAMS = 8
"""Streams that each thread reads side by side at most; more gave no more on the machines tried."""
CACHE_MULTIPLE = 3
"""The buffer that is read exceeds the last-level cache by this factor, so that it comes from memory."""
LEAST_BUFFER_BYTES = 256 << 20
PASSES = 2
REPETITIONS = 200_000
"""Of twelve vector products, a few milliseconds."""
INSTRUCTIONS = ("fma", "vdpbf16ps", "amx")


@dataclass(frozen=True)
class Limits:
    """One round's probes. What the processor lacks is 0."""

    stream_gb_per_s: float
    """Read bandwidth when every thread follows one stream of addresses."""
    read_gb_per_s: float
    """Read bandwidth when every thread reads STREAMS streams side by side; at least the former."""
    gflops: dict[str, float]
    """Products and sums per second, by instruction: fp32 `fma`, bf16 `vdpbf16ps`, bf16 `amx`."""


class Probes:
    """Holds the buffer that the bandwidth probe reads, several times the size of the last-level cache.

    Raises RuntimeError if there is no C compiler.
    """

    def __init__(self, threads: int) -> None:
        self._library = _library()
        self._threads = threads
        size = max(LEAST_BUFFER_BYTES, CACHE_MULTIPLE * last_level_cache_bytes())
        self._buffer = torch.ones(size, dtype=torch.uint8)

    def limits(self) -> Limits:
        """Both limits now; some 0.1 s."""
        stream, side_by_side = (self.read_gb_per_s(streams) for streams in (1, STREAMS))
        gflops = {name: self.gflops(name) for name in INSTRUCTIONS}
        return Limits(stream, max(stream, side_by_side), gflops)

    def read_gb_per_s(self, streams: int) -> float:
        """Read bandwidth, all threads together, `streams` per thread."""
        data, size = self._buffer.data_ptr(), self._buffer.nbytes
        return self._library.read_rate(data, size, self._threads, streams, PASSES) / 1e9

    def gflops(self, instruction: str) -> float:
        """Of all threads together, from registers."""
        return self._library.multiply_rate(instruction.encode(), self._threads, REPETITIONS, PASSES) / 1e9


@functools.cache
def _library() -> ctypes.CDLL:
    compiler = os.environ.get("CC", "cc")
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory) / "probes.so"
        command = [compiler, "-O3", "-march=native", "-shared", "-fPIC", "-pthread", str(SOURCE), "-o", str(target)]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except FileNotFoundError:
            raise RuntimeError(f"the probes need a C compiler, and {compiler} (set CC) was not found") from None
        except subprocess.CalledProcessError as error:
            raise RuntimeError(f"{compiler} could not compile the probes: {error.stderr}") from None
        library = ctypes.CDLL(str(target))
    library.read_rate.restype = ctypes.c_double
    library.read_rate.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int]
    library.multiply_rate.restype = ctypes.c_double
    library.multiply_rate.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_long, ctypes.c_int]
    return library


def main() -> None:
    """Prints the limits a few times over, to show how steady they are."""
    probes = Probes(torch.get_num_threads())
    for _ in range(5):
        limits = probes.limits()
        gflops = ", ".join(f"{name} {rate:.0f}" for name, rate in limits.gflops.items())
        read = f"{limits.stream_gb_per_s:.1f} (one stream per thread), {limits.read_gb_per_s:.1f} ({STREAMS})"
        print(f"read GB/s {read}; GFLOP/s {gflops}")


if __name__ == "__main__":
    main()
