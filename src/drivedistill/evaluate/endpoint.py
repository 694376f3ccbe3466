"""Asking an OpenAI-compatible server: for ratings (`judge.py`) and for answers to questions about pictures.

vLLM, SGLang, llama.cpp, LMDeploy and the commercial services all speak `POST /v1/chat/completions`. Requests run
concurrently; a server that stumbles is asked again with growing waits, a refusal ends the call.
No torch here: scoring uses it too.
"""

from __future__ import annotations

import base64
import io
import os
import re
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import httpx

from drivedistill.data.images import Change, load_image
from drivedistill.problems import InputError, Problem, RunError
from drivedistill.records import CAMERAS, Sample

_MAX_WAIT_S = 60.0
_JPEG_QUALITY = 95


class Answer(NamedTuple):
    """What a model wrote."""

    text: str
    tokens: int | None = None
    """Number of tokens, the end token included; None where a server does not say."""
    cut: bool = False
    """Whether it stopped at the limit and not by itself."""
    confidence: float | None = None
    """Mean probability of its tokens; None where nobody says."""


Answerer = Callable[[Sequence[Sample]], list[Answer]]
"""Answers a batch of samples, in their order."""

T = TypeVar("T")
Body = dict[str, Any]
"""A request without its `model`."""


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


class Client:
    """Asks one endpoint.

    Args:
        endpoint: The server.
        role: What messages call it: `judge`, `server`.
        sleep: Waits between attempts; by default a wait that ends when the call is given up.

    Raises:
        InputError: The address is none, or the key's environment variable is not set.
    """

    def __init__(self, endpoint: Endpoint, role: str, sleep: Callable[[float], object] | None = None) -> None:
        self.endpoint = endpoint
        self._role = role
        self._sleep = sleep
        self._headers = _authorization(endpoint, role)

    def ask(
        self, items: Sequence[T], body: Callable[[T], Body], keep: Callable[[T, Answer], None] | None = None
    ) -> list[Answer]:
        """Answers to `items`, in their order.

        Args:
            items: What is asked about.
            body: Makes an item's request; called in the thread that sends it.
            keep: Is given each answer as soon as it is there, from several threads.

        Raises:
            RunError: The endpoint refused, or failed more often than `retries` allows. Answers that came before were
                given to `keep`.
        """
        given_up = threading.Event()
        base = self.endpoint.url.rstrip("/").removesuffix("/v1")

        def answer(item: T) -> Answer:
            found = self._post(client, {"model": self.endpoint.model, **body(item)}, given_up)
            if keep is not None:
                keep(item, found)
            return found

        with (
            httpx.Client(base_url=base, headers=self._headers, timeout=self.endpoint.timeout_s) as client,
            ThreadPoolExecutor(self.endpoint.concurrency) as pool,
        ):
            futures = [pool.submit(answer, item) for item in items]
            try:
                return [future.result() for future in futures]
            except BaseException:
                given_up.set()
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def _post(self, client: httpx.Client, body: Body, given_up: threading.Event) -> Answer:
        for attempt in range(self.endpoint.retries + 1):
            wait = min(self.endpoint.backoff_s * 2**attempt, _MAX_WAIT_S)
            try:
                response = client.post("/v1/chat/completions", json=body)
            except httpx.TransportError as error:
                failure = f"{type(error).__name__}: {error}"
            else:
                if response.is_success:
                    return self._answer(response)
                failure = f"HTTP {response.status_code}: {response.text[:300]}"
                if response.status_code != 429 and response.status_code < 500:
                    break  # A refusal (wrong key, unknown model) stays one.
                wait = min(_retry_after(response) or wait, _MAX_WAIT_S)
            if attempt < self.endpoint.retries:
                (self._sleep or given_up.wait)(wait)
            if given_up.is_set():
                break
        raise RunError(f"the {self._role} at {self.endpoint.url} ({self.endpoint.model}) did not answer: {failure}")

    def _answer(self, response: httpx.Response) -> Answer:
        try:
            value = response.json()
            choice = value["choices"][0]
            content = choice["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError):
            raise RunError(f"the {self._role}'s answer is no chat completion: {response.text[:300]}") from None
        usage = value.get("usage")
        tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
        return Answer(
            content if isinstance(content, str) else "",
            tokens if isinstance(tokens, int) else None,
            choice.get("finish_reason") == "length",
        )


def served_answerer(
    endpoint: Endpoint, max_new_tokens: int, *, change: Change | None = None, blind: bool = False
) -> Answerer:
    """Answers by a server's vision-language model, at temperature 0; a batch is asked concurrently.

    Every picture is announced by its camera, as in `data/collate.py`. It travels in its full size, since points and boxes
    in questions are its pixels, as a JPEG of quality 95 with the region in red.

    Args:
        endpoint: The server.
        max_new_tokens: Longest answer.
        change: Made to every picture; see `data/condition.py`.
        blind: Send no picture.

    Raises:
        InputError: The address is none, or the key's environment variable is not set. The answerer raises it too, for
            pictures that cannot be read.
        RunError: Raised by the answerer when the server refuses or keeps failing.
    """
    client = Client(endpoint, "server")

    def body(sample: Sample) -> Body:
        messages = [{"role": "user", "content": _content(sample, change, blind=blind)}]
        return {"messages": messages, "temperature": 0, "max_tokens": max_new_tokens}

    def answer(samples: Sequence[Sample]) -> list[Answer]:
        return [found._replace(text=found.text.strip()) for found in client.ask(samples, body)]

    return answer


def _content(sample: Sample, change: Change | None, *, blind: bool) -> list[dict[str, Any]]:
    """The parts of a question: camera, picture, camera, picture, ..., question."""
    parts: list[dict[str, Any]] = []
    for camera in () if blind else CAMERAS:
        if camera in sample.images:
            parts += [
                {"type": "text", "text": f"{camera}: "},
                {"type": "image_url", "image_url": {"url": _data_uri(sample, camera, change)}},
            ]
    if not parts and not blind:
        remedy = "remove the sample, or give it a picture"
        raise InputError(Problem(sample.dataset, f"sample {sample.id}", "at least one picture", "none", remedy))
    return [*parts, {"type": "text", "text": sample.question}]


def _data_uri(sample: Sample, camera: str, change: Change | None) -> str:
    region = sample.region if sample.region and sample.region.camera == camera else None
    buffer = io.BytesIO()
    load_image(sample.images[camera], None, region, change=change).save(
        buffer, "JPEG", quality=_JPEG_QUALITY, subsampling=0
    )
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _authorization(endpoint: Endpoint, role: str) -> dict[str, str]:
    """Headers of a request, after the endpoint's description has been checked."""
    if not re.match(r"https?://[^/]", endpoint.url):
        remedy = "write it like https://api.openai.com/v1"
        raise InputError(Problem("command line", role, "an http(s) address", repr(endpoint.url), remedy))
    if endpoint.api_key_env is None:
        return {}
    key = os.environ.get(endpoint.api_key_env)
    if not key:
        remedy = f"export {endpoint.api_key_env}=..., or name no key for a server that needs none"
        raise InputError(Problem("environment", endpoint.api_key_env, f"the {role}'s API key", "not set", remedy))
    return {"Authorization": f"Bearer {key}"}


def _retry_after(response: httpx.Response) -> float | None:
    value = response.headers.get("Retry-After", "")
    return float(value) if re.fullmatch(r"\d+(\.\d+)?", value) else None
