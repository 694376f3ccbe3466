"""`drivedistill world`: the whole data set, in any number of processes, as a function of its settings alone."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from importlib.metadata import version
from itertools import groupby
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from drivedistill.problems import InputError, RunError
from drivedistill.progress import Progress
from drivedistill.records import write_json, write_text
from drivedistill.signals import Signals, leave_group
from drivedistill.world.dataset.assemble import NAMES, Part, data_hash, load_part, set_ratio, summary, write_part
from drivedistill.world.dataset.folder import BALANCE, MANIFEST, Settings, finished, prepare
from drivedistill.world.dataset.plan import Chunk, chunks
from drivedistill.world.dataset.shard import PARTS, write_chunk


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
        overwrite: Replace the data set that is there.

    Returns:
        The manifest.

    Raises:
        InputError: Settings that cannot be met, a folder that holds something else, damaged parts.
        Stopped: SIGINT or SIGTERM; the same call goes on.
    """
    if problems := settings.problems():
        raise InputError(problems)
    manifest = None if overwrite else finished(out, settings)
    if manifest is not None:
        return manifest
    prepare(out, settings, overwrite=overwrite)
    work = chunks(settings.keyframes)
    with Progress(settings.keyframes, word="key frames") as progress, Signals() as signals:
        try:
            for done in _write_chunks(out, work, settings, workers):
                for _ in range(done):
                    progress.advance()
                if signals.number:
                    raise Stopped(signals.number)
        except BrokenProcessPool as error:
            if signals.number:  # it reached the workers too
                raise Stopped(signals.number) from None
            raise RunError("a worker was killed; finished parts are kept, the same command goes on") from error
    manifest = _assemble(out, work, settings)
    write_json(out / MANIFEST, manifest)
    shutil.rmtree(out / PARTS)
    return manifest


def _write_chunks(out: Path, work: list[Chunk], settings: Settings, workers: int) -> Iterator[int]:
    """Yield the key frames of each chunk as it is finished."""
    if workers == 1:
        for chunk in work:
            yield write_chunk(out, chunk, settings.seed, settings.size)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _begin_worker) as pool:
        jobs = [pool.submit(write_chunk, out, chunk, settings.seed, settings.size) for chunk in work]
        try:
            for job in as_completed(jobs):
                yield job.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _begin_worker() -> None:
    """Signals reach the parent alone, which lets the chunk be finished; a worker does not outlive its parent."""
    leave_group(0)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


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
        **settings.mark(),
        "libraries": {name: version(name) for name in ("numpy", "numba", "pillow")},
        "data_hash": data_hash(list(parts.values())),
        "regular_to_corner": round(regular.drivelm_questions / max(1, corner_questions), 2),
        "parts": [summary(part) for part in parts.values()],
        "files": sorted(path for part in parts.values() for path in part.files),
    }
