"""Stands in for the command line: leaves what a verb leaves, at once. Appends every call to $CALLS; fails at $FAIL."""

import hashlib
import json
import os
import sys
from pathlib import Path


def play(words: list[str]) -> int:
    """Do as the verb does; returns its exit code."""
    line, (verb, *rest) = " ".join(words), words
    with open(os.environ["CALLS"], "a") as calls:
        calls.write(line + "\n")
    if os.environ.get("FAIL") and os.environ["FAIL"] in line:
        print("it went wrong")
        return 1
    out = Path(rest[rest.index("--out") + 1]) if "--out" in rest else Path(rest[0])
    if verb == "cache":
        (out.parents[2] / "cache").mkdir(exist_ok=True)
    elif verb in ("train", "distill"):
        digest = hashlib.sha256(Path(rest[0]).read_bytes() + os.environ.get("WEIGHTS", "").encode()).hexdigest()
        _write(out / "model" / "model.safetensors", digest)
        _write(out / "run.json", json.dumps({"finished": "now", "params_m": 1.0}))
    elif verb == "bench":
        assert not out.exists(), "bench refuses a folder with files in it"
    left = {"predict": "", "score": "", "probe": "probe/probe.json", "experts": "experts/test/experts.json"}
    left |= {"bench": "bench.json"}
    if verb in left:
        _write(out / left[verb], "" if verb == "predict" else "[]")
    return 0


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


if __name__ == "__main__":
    sys.exit(play(sys.argv[1:]))
