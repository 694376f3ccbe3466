"""Compiled functions, kept on disk until any kernel of the world changes.

Numba drops a kept function when its own file changes, not when a file changes that it calls into, and would then draw
yesterday's pictures. So the folder is named after the content of all files that hold kernels.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba

OPTIONS = {"error_model": "numpy", "_nrt": False, "forceinline": True}
"""Kernels allocate nothing: without numba's runtime (nrt) they need not count references to the arrays that they hand on,
which would take half of the time."""


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function when it is first called, and put it into its callers.

    Kernels add, subtract, multiply, divide, take square roots and round down, and never in another order than written
    (no `fastmath`): what they draw does not depend on the processor.
    """
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = folder()
    try:
        return numba.njit(cache=bool(folder()), **OPTIONS)(function)
    finally:
        numba.config.CACHE_DIR = before


@cache
def folder() -> str:
    """Where compiled functions are kept: below `NUMBA_CACHE_DIR`, or in the user's cache; empty if that cannot be written."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    base = Path(os.environ.get("NUMBA_CACHE_DIR") or Path(home) / "drivedistill" / "kernels")
    kept = base / source_digest(b"@kernel")
    try:
        kept.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError:
        return ""
    return str(kept) if os.access(kept, os.W_OK) else ""


@cache
def source_digest(marker: bytes = b"") -> str:
    """Digest of the world's source files; of those that contain the marker, if one is given."""
    contents = (path.read_bytes() for path in sorted(Path(__file__).parent.rglob("*.py")))
    return hashlib.sha256(b"".join(content for content in contents if marker in content)).hexdigest()[:16]
