"""Runs a helper as a program for which Triton compiles: in the process of the tests, its kernels may belong to the
interpreter, for good.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def run_cases(program: str, cases: Sequence[Mapping[str, Any]], *arguments: str) -> list[dict[str, Any]]:
    """What the program writes, as JSON, for these cases, which it reads as JSON."""
    with tempfile.TemporaryDirectory() as cache:
        path = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        settings = {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": cache, "PYTHONPATH": os.pathsep.join(path)}
        finished = subprocess.run(
            [sys.executable, program, *arguments],
            input=json.dumps(list(cases)),
            env=os.environ | settings,
            capture_output=True,
            text=True,
            check=False,
        )
    assert finished.returncode == 0, finished.stderr[-4000:]
    return json.loads(finished.stdout)
