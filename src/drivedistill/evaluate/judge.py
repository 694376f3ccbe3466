"""Ratings by a language model: DriveLM's and CODA-LM's judges, through any OpenAI-compatible endpoint.

Off unless an endpoint is named. A judge's prompt is data (`prompts/*.json`): texts, worked examples, temperature,
scale and the patterns that find the rating in a reply. Replies are kept in a JSONL cache, so that a run that breaks
off goes on where it stopped and a second run costs nothing. A reply without a readable rating is counted, never dropped.

Judges differ: two models, or two versions of one, give ratings that must not be compared. The model is part of every
score's label.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import re
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import Field, ValidationError

from drivedistill.evaluate.endpoint import Answer, Body, Client, Endpoint
from drivedistill.problems import InputError, Problem, RunError, missing_file
from drivedistill.records import Row, validation_problems

PromptName = Literal["drivelm", "coda_general", "coda_suggestion", "coda_region"]


class Example(Row):
    """A worked example that the judge sees before the answer."""

    user: str
    assistant: str


class Prompt(Row):
    """How a benchmark asks its judge; `user` contains `{reference}`, `{answer}` and, where shown, `{question}`."""

    name: str
    source: str
    system: str
    user: str
    examples: tuple[Example, ...] = ()
    model: str
    """The benchmark's own judge, for the documentation; the model that is asked is the caller's choice."""
    temperature: float
    max_tokens: int | None = None
    low: float
    high: float
    factor: float
    """Ratings are multiplied by it, so that all judges report 0 to 100."""
    patterns: tuple[str, ...] = Field(min_length=1)
    """Tried in order; group 1 is the rating."""


class Item(NamedTuple):
    """One answer to rate."""

    question: str
    reference: str
    answer: str


class Verdict(NamedTuple):
    """A judge's reply, and the rating in it: 0 to 100, None where none can be read."""

    rating: float | None
    reply: str


def load_prompt(source: PromptName | Path) -> Prompt:
    """A prompt of this package by name, or one's own from a JSON file of the same form.

    Raises:
        InputError: The file is missing or not of this form.
    """
    if isinstance(source, Path):
        if not source.is_file():
            raise InputError(missing_file(source, "a judge's prompt (JSON)", "check the path"))
        text = source.read_text(encoding="utf-8")
    else:
        text = prompt_text(source)
    try:
        return Prompt.model_validate_json(text)
    except ValidationError as error:
        raise InputError(validation_problems(error, str(source), "")) from None


def prompt_text(name: str) -> str:
    """Content of the data file `prompts/NAME.json`."""
    files = importlib.resources.files("drivedistill.evaluate") / "prompts" / f"{name}.json"
    return files.read_text(encoding="utf-8")


def messages(prompt: Prompt, item: Item) -> list[dict[str, str]]:
    """The chat that asks for one rating. Braces in an answer stay as they are; lone surrogates become `?`."""
    question, reference, answer = (text.encode("utf-8", "replace").decode() for text in item)
    fields = {"{question}": question, "{reference}": reference, "{answer}": answer}
    user = re.sub("|".join(map(re.escape, fields)), lambda match: fields[match.group()], prompt.user)
    chat = [{"role": "system", "content": prompt.system}]
    for example in prompt.examples:
        chat += [{"role": "user", "content": example.user}, {"role": "assistant", "content": example.assistant}]
    return [*chat, {"role": "user", "content": user}]


def parse_rating(prompt: Prompt, reply: str) -> float | None:
    """The rating in a reply, times the prompt's factor; None where no pattern fits or it lies outside the scale.

    A reasoning model's `<think>` part is ignored, as in DriveLM's script.
    """
    text = re.sub(r"<think>.*?</think>", "", reply, flags=re.DOTALL)
    for pattern in prompt.patterns:
        if found := re.search(pattern, text):
            rating = float(found.group(1))
            return rating * prompt.factor if prompt.low <= rating <= prompt.high else None
    return None


class Judge:
    """Rates answers through one endpoint; replies are kept in `cache` (JSONL), if given.

    Raises:
        InputError: The address is none, the key's environment variable is not set, or the cache cannot be read.
    """

    def __init__(
        self, endpoint: Endpoint, *, cache: Path | None = None, sleep: Callable[[float], object] | None = None
    ) -> None:
        self.model = endpoint.model
        """The model that is asked."""
        self._client = Client(endpoint, "judge", sleep)
        self._cache = cache
        self._lock = threading.Lock()
        self._replies = {} if cache is None else _read_cache(cache)

    def rate(self, prompt: Prompt, items: Sequence[Item]) -> list[Verdict]:
        """Ratings of `items`, in their order; equal items are asked once.

        Raises:
            RunError: The endpoint refused, or failed more often than `retries` allows. Replies that came before are in
                the cache; running again goes on from there.
        """
        keys = [self._key(prompt, item) for item in items]
        missing = {key: item for key, item in zip(keys, items, strict=True) if key not in self._replies}

        def keep(entry: tuple[str, Item], answer: Answer) -> None:
            self._keep(prompt, *entry, answer.text)

        try:
            self._client.ask(list(missing.items()), lambda entry: _body(prompt, entry[1]), keep)
        except RunError as error:
            if self._cache is None:
                raise
            raise RunError(f"{error}; replies so far are kept in {self._cache}, run again to go on") from error
        replies = [self._replies[key] for key in keys]
        return [Verdict(parse_rating(prompt, reply), reply) for reply in replies]

    def _key(self, prompt: Prompt, item: Item) -> str:
        identity = json.dumps([prompt.model_dump(mode="json"), self.model, *item])
        return hashlib.sha256(identity.encode()).hexdigest()

    def _keep(self, prompt: Prompt, key: str, item: Item, reply: str) -> None:
        line = {"key": key, "prompt": prompt.name, "model": self.model, **item._asdict(), "reply": reply}
        with self._lock:
            self._replies[key] = reply
            if self._cache is not None:
                with self._cache.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")


def _body(prompt: Prompt, item: Item) -> Body:
    body: Body = {"messages": messages(prompt, item), "temperature": prompt.temperature}
    if prompt.max_tokens is not None:
        body["max_tokens"] = prompt.max_tokens
    return body


def _read_cache(path: Path) -> dict[str, str]:
    """Replies by key. A last line without its newline was cut off while it was written: it is removed, and asked again."""
    if not path.exists():
        return {}
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    replies: dict[str, str] = {}
    problems: list[Problem] = []
    for number, line in enumerate(whole.decode("utf-8").split("\n")[:-1], start=1):
        try:
            entry = json.loads(line)
            replies[entry["key"]] = str(entry["reply"])
        except (ValueError, KeyError, TypeError) as error:
            problems.append(Problem(str(path), f"line {number}", "a cached verdict", repr(error), "remove the line"))
    if problems:
        raise InputError(problems)
    if len(whole) < len(content):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    return replies
