"""`drivedistill world`: the whole data set, in any number of processes, as a function of its settings alone."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

from drivedistill.problems import InputError, Problem
from drivedistill.progress import Progress
from drivedistill.records import write_json, write_text
from drivedistill.signals import Signals
from drivedistill.world import VERSION
from drivedistill.world.dataset.assemble import NAMES, Part, load_part, set_ratio, summary, write_part
from drivedistill.world.dataset.plan import Chunk, chunks
from drivedistill.world.dataset.shard import PARTS, write_chunk

MANIFEST = "manifest.json"
BALANCE = "balance.txt"
SIZES = (96, 448)


@dataclass(frozen=True)
class Settings:
    """What a data set is a function of, beside the generator's version and its libraries'."""

    keyframes: int
    seed: int
    size: int
    """Width and height of the pictures in pixels."""


class Stopped(Exception):
    """A signal arrived; what is finished is kept. `number` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__("stopped; finished parts are kept, the same command goes on")
        self.number = number


def write_world(out: Path, settings: Settings, *, workers: int = 1, overwrite: bool = False) -> dict[str, Any]:
    """Write the data set, or finish one that was interrupted.

    Args:
        out: Root of the data set; `regular/`, `corner/` and `manifest.json` are written below it.
        settings: How many key frames, of which seed and size.
        workers: Processes. The files do not depend on their number.
        overwrite: Replace a data set of other settings.

    Returns:
        The manifest.

    Raises:
        InputError: Settings that cannot be met, or a folder that holds something else.
        Stopped: SIGINT or SIGTERM; the same call goes on.
    """
    _check_size(settings)
    work = chunks(settings.keyframes)
    finished = _open(out, settings, overwrite)
    if finished is not None:
        return finished
    with Progress(settings.keyframes, word="key frames") as progress, Signals() as signals:
        for done in _write_chunks(out, work, settings, workers):
            for _ in range(done):
                progress.advance()
            if signals.number:
                raise Stopped(signals.number)
    manifest = _assemble(out, work, settings)
    write_json(out / MANIFEST, manifest)
    shutil.rmtree(out / PARTS)
    return manifest


def _check_size(settings: Settings) -> None:
    low, high = SIZES
    if not low <= settings.size <= high:
        expected = f"{low} to {high} pixels"
        raise InputError(Problem("command line", "--size", expected, str(settings.size), "choose another size"))


def _open(out: Path, settings: Settings, overwrite: bool) -> dict[str, Any] | None:
    """Make the folder ready; the manifest if the very same data set is there already."""
    wanted = {"version": VERSION, **asdict(settings)}
    note = out / PARTS / "settings.json"
    for path in (out / MANIFEST, note):
        if path.is_file():
            found = json.loads(path.read_text("utf-8"))
            if {key: found.get(key) for key in wanted} == wanted and not overwrite:
                return found if path.name == MANIFEST else None
            if not overwrite:
                differs = ", ".join(f"{key} {found.get(key)}" for key in wanted if found.get(key) != wanted[key])
                remedy = "choose another folder, or add --overwrite"
                raise InputError(Problem(str(out), "", "an empty folder, or the same data set", differs, remedy))
    if overwrite:
        for name in ("regular", "corner", PARTS):
            shutil.rmtree(out / name, ignore_errors=True)
        (out / MANIFEST).unlink(missing_ok=True)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        found = "a file" if not out.is_dir() else ", ".join(sorted(path.name for path in out.iterdir())[:5])
        raise InputError(Problem(str(out), "", "an empty folder", found, "choose another folder"))
    note.parent.mkdir(parents=True)
    write_json(note, wanted)
    return None


def _write_chunks(out: Path, work: list[Chunk], settings: Settings, workers: int) -> Iterator[int]:
    """Yield the key frames of each chunk as it is finished."""
    if workers == 1:
        for chunk in work:
            yield write_chunk(out, chunk, settings.seed, settings.size)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _ignore_interrupts) as pool:
        jobs = [pool.submit(write_chunk, out, chunk, settings.seed, settings.size) for chunk in work]
        try:
            for job in as_completed(jobs):
                yield job.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _ignore_interrupts() -> None:
    """A Ctrl-C reaches the whole process group; only the parent decides what to do about it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _assemble(out: Path, work: list[Chunk], settings: Settings) -> dict[str, Any]:
    """Balance, write the files, and describe them."""
    parts: dict[tuple[str, str], Part] = {}
    for (split, regime), group in groupby(work, key=lambda chunk: (chunk.split, chunk.regime)):
        parts[split, regime] = load_part(out, list(group), settings.seed)
    set_ratio(parts["train", "regular"], parts["train", "corner"], settings.seed)
    numbers = {"val": 1, "test": 1}
    tables = [f"{split}, {regime}\n{part.balance}\n" for (split, regime), part in parts.items()]
    write_text(out / BALANCE, "\n".join(tables))
    for part in parts.values():
        folder = "val" if NAMES[part.split] == "train" else "test"
        write_part(out, part, numbers[folder])
        numbers[folder] += sum(frame["coda"] is not None for frame in part.frames)
    regular, corner = parts["train", "regular"], parts["train", "corner"]
    corner_questions = corner.drivelm_questions + corner.coda_questions
    return {
        "version": VERSION,
        **asdict(settings),
        "libraries": {name: version(name) for name in ("numpy", "numba", "pillow")},
        "data_hash": _data_hash(parts),
        "regular_to_corner": round(regular.drivelm_questions / max(1, corner_questions), 2),
        "parts": [summary(part) for part in parts.values()],
    }


def _data_hash(parts: dict[tuple[str, str], Part]) -> str:
    """SHA-256 of every file of questions and of every picture's pixels (before JPEG, whose bytes a library may change)."""
    digest = hashlib.sha256()
    for part in parts.values():
        for path, content in sorted(part.files.items()):
            digest.update(f"{path} {content}\n".encode())
        for frame in part.frames:
            digest.update(f"{frame['frame']} {frame['pixels']}\n".encode())
    return digest.hexdigest()
