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
import os
import re
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import httpx
from pydantic import Field, ValidationError

from drivedistill.problems import InputError, Problem, RunError, missing_file
from drivedistill.records import Row, validation_problems

PromptName = Literal["drivelm", "coda_general", "coda_suggestion", "coda_region"]

_MAX_WAIT_S = 60.0


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


@dataclass(frozen=True)
class Endpoint:
    """Where and how to ask: an OpenAI-compatible server, and how patient to be with it."""

    url: str
    """`https://host` or `https://host/v1`."""
    model: str
    api_key_env: str | None = None
    """Name of the environment variable that holds the key; None for a server that needs none."""
    concurrency: int = 8
    retries: int = 5
    """Further attempts after a 429, a 5xx, a time-out or a broken connection."""
    backoff_s: float = 1.0
    """Wait before the first of them; doubled each time, at most a minute. A `Retry-After` header is obeyed."""
    timeout_s: float = 60.0


class Judge:
    """Rates answers through one endpoint; replies are kept in `cache` (JSONL), if given.

    Raises:
        InputError: The address is none, the key's environment variable is not set, or the cache cannot be read.
    """

    def __init__(
        self, endpoint: Endpoint, *, cache: Path | None = None, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.endpoint = endpoint
        self._headers = _authorization(endpoint)
        self._cache = cache
        self._sleep = sleep
        self._lock = threading.Lock()
        self._replies = {} if cache is None else _read_cache(cache)

    @property
    def model(self) -> str:
        """The model that is asked."""
        return self.endpoint.model

    def rate(self, prompt: Prompt, items: Sequence[Item]) -> list[Verdict]:
        """Ratings of `items`, in their order; equal items are asked once.

        Raises:
            RunError: The endpoint refused, or failed more often than `retries` allows. Replies that came before are in
                the cache; running again goes on from there.
        """
        keys = [self._key(prompt, item) for item in items]
        missing = {key: item for key, item in zip(keys, items, strict=True) if key not in self._replies}
        base = self.endpoint.url.rstrip("/").removesuffix("/v1")
        with (
            httpx.Client(base_url=base, headers=self._headers, timeout=self.endpoint.timeout_s) as client,
            ThreadPoolExecutor(self.endpoint.concurrency) as pool,
        ):
            futures = [pool.submit(self._ask, client, prompt, key, item) for key, item in missing.items()]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        replies = [self._replies[key] for key in keys]
        return [Verdict(parse_rating(prompt, reply), reply) for reply in replies]

    def _key(self, prompt: Prompt, item: Item) -> str:
        identity = json.dumps([prompt.model_dump(mode="json"), self.endpoint.model, *item])
        return hashlib.sha256(identity.encode()).hexdigest()

    def _ask(self, client: httpx.Client, prompt: Prompt, key: str, item: Item) -> None:
        body: dict[str, Any] = {"model": self.endpoint.model, "messages": messages(prompt, item)}
        body["temperature"] = prompt.temperature
        if prompt.max_tokens is not None:
            body["max_tokens"] = prompt.max_tokens
        reply = self._post(client, body)
        with self._lock:
            self._replies[key] = reply
            if self._cache is not None:
                line = {
                    "key": key,
                    "prompt": prompt.name,
                    "model": self.endpoint.model,
                    **item._asdict(),
                    "reply": reply,
                }
                with self._cache.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")

    def _post(self, client: httpx.Client, body: dict[str, Any]) -> str:
        for attempt in range(self.endpoint.retries + 1):
            wait = min(self.endpoint.backoff_s * 2**attempt, _MAX_WAIT_S)
            try:
                response = client.post("/v1/chat/completions", json=body)
            except httpx.TransportError as error:
                failure = f"{type(error).__name__}: {error}"
            else:
                if response.is_success:
                    return _reply(response)
                failure = f"HTTP {response.status_code}: {response.text[:300]}"
                if response.status_code != 429 and response.status_code < 500:
                    break  # A refusal (wrong key, unknown model) stays one.
                wait = min(_retry_after(response) or wait, _MAX_WAIT_S)
            if attempt < self.endpoint.retries:
                self._sleep(wait)
        kept = f"; replies so far are kept in {self._cache}, run again to go on" if self._cache else ""
        raise RunError(f"the judge at {self.endpoint.url} ({self.model}) did not answer: {failure}{kept}")


def _authorization(endpoint: Endpoint) -> dict[str, str]:
    """Headers of a request, after the endpoint's description has been checked."""
    if not re.match(r"https?://[^/]", endpoint.url):
        remedy = "write it like https://api.openai.com/v1"
        raise InputError(Problem("command line", "judge", "an http(s) address", repr(endpoint.url), remedy))
    if endpoint.api_key_env is None:
        return {}
    key = os.environ.get(endpoint.api_key_env)
    if not key:
        remedy = f"export {endpoint.api_key_env}=..., or name no key for a server that needs none"
        raise InputError(Problem("environment", endpoint.api_key_env, "the judge's API key", "not set", remedy))
    return {"Authorization": f"Bearer {key}"}


def _reply(response: httpx.Response) -> str:
    try:
        content = response.json()["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError):
        raise RunError(f"the judge's answer is no chat completion: {response.text[:300]}") from None
    return content if isinstance(content, str) else ""


def _retry_after(response: httpx.Response) -> float | None:
    value = response.headers.get("Retry-After", "")
    return float(value) if re.fullmatch(r"\d+(\.\d+)?", value) else None


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
