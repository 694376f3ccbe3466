"""Answers by a small OpenAI-compatible server on 127.0.0.1 that looks at what it is sent."""

import base64
import io
import json
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import tiny
from drivedistill.cli import app
from drivedistill.data.samples import write_samples
from drivedistill.evaluate.endpoint import Client, Endpoint, served_answerer
from drivedistill.problems import InputError, RunError
from drivedistill.records import CAMERAS, Prediction, Region, read_jsonl


def completion(text, tokens=None, finish="stop"):
    usage = {} if tokens is None else {"usage": {"completion_tokens": tokens}}
    return {"choices": [{"message": {"content": text}, "finish_reason": finish}], **usage}


class Server:
    """Keeps requests; `respond(body)` gives a status and a JSON value. Counts how many it answers at once."""

    def __init__(self, respond):
        self.requests, self.headers, self.busy, self.busiest = [], [], 0, 0
        lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    outer.requests.append(body)
                    outer.headers.append((self.path, self.headers.get("Authorization")))
                    outer.busy += 1
                    outer.busiest = max(outer.busiest, outer.busy)
                status, value = respond(body)
                with lock:
                    outer.busy -= 1
                reply = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(reply)))
                self.end_headers()
                self.wfile.write(reply)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    servers = []

    def start(respond):
        servers.append(Server(respond))
        return servers[-1]

    yield start
    for server in servers:
        server.http.shutdown()
        server.http.server_close()


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return tiny.samples(tiny.pictures(tmp_path_factory.mktemp("drawn")))


def question_of(body):
    return body["messages"][0]["content"][-1]["text"]


def repeat(body):
    return 200, completion(f" You asked: {question_of(body)}\n", 7)


def pictures_of(body):
    """Camera -> pixels, as announced."""
    parts = body["messages"][0]["content"][:-1]
    found = {}
    for name, picture in zip(parts[::2], parts[1::2], strict=True):
        prefix, data = picture["image_url"]["url"].split(",")
        assert (name["type"], picture["type"], prefix) == ("text", "image_url", "data:image/jpeg;base64")
        found[name["text"]] = np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))).astype(int)
    return found


def test_answers_come_back_in_order_with_their_tokens(serve, drawn):
    server = serve(repeat)
    answers = served_answerer(Endpoint(f"{server.url}/v1", "m"), 50)(drawn)
    assert [answer.text for answer in answers] == [f"You asked: {sample.question}" for sample in drawn]
    assert {answer[1:] for answer in answers} == {(7, False, None)}
    for body in server.requests:
        assert (body["model"], body["temperature"], body["max_tokens"]) == ("m", 0, 50)
        assert [message["role"] for message in body["messages"]] == ["user"]
    assert server.headers[0] == ("/v1/chat/completions", None)


def test_every_picture_is_announced_by_its_camera_in_full_size(serve, drawn):
    server = serve(repeat)
    shuffled = drawn[1].model_copy(update={"images": dict(reversed(drawn[1].images.items()))})
    served_answerer(Endpoint(server.url, "m"), 50)([shuffled])
    sent = pictures_of(server.requests[0])
    assert list(sent) == [f"{camera}: " for camera in CAMERAS]
    for camera in CAMERAS:
        original = np.asarray(Image.open(drawn[1].images[camera])).astype(int)
        assert sent[f"{camera}: "].shape == original.shape
        assert np.abs(sent[f"{camera}: "] - original).mean() < 6  # noise is the worst case of a JPEG


def test_the_region_is_red_in_its_own_picture_only(serve, drawn, tmp_path):
    grey = tmp_path / "grey.png"
    Image.new("RGB", (160, 90), (90, 90, 90)).save(grey)
    region = Region(camera="CAM_BACK", box=(40, 20, 60, 30))
    images = {"CAM_FRONT": str(grey), "CAM_BACK": str(grey)}
    server = serve(repeat)
    sample = drawn[0].model_copy(update={"images": images, "region": region})
    served_answerer(Endpoint(server.url, "m"), 50)([sample])
    sent = pictures_of(server.requests[0])
    red = {camera: np.argwhere((p[..., 0] > 200) & (p[..., 1] < 60)) for camera, p in sent.items()}
    assert len(red["CAM_FRONT: "]) == 0
    assert (red["CAM_BACK: "].min(0).tolist(), red["CAM_BACK: "].max(0).tolist()) == ([20, 40], [50, 100])


def test_an_answer_at_the_limit_is_cut_and_no_text_is_empty(serve, drawn):
    replies = iter([completion("half an ans", 50, "length"), completion(None)])
    server = serve(lambda _: (200, next(replies)))
    answers = served_answerer(Endpoint(server.url, "m", concurrency=1), 50)(drawn[:2])
    assert answers == [("half an ans", 50, True, None), ("", None, False, None)]


def test_a_batch_is_asked_concurrently_but_not_by_more_than_allowed(serve, drawn):
    def slowly(body):
        time.sleep(0.1)
        return repeat(body)

    server = serve(slowly)
    served_answerer(Endpoint(server.url, "m", concurrency=3), 50)(drawn)
    assert server.busiest == 3


def test_the_key_is_sent_and_required(serve, drawn, monkeypatch):
    server = serve(repeat)
    monkeypatch.setenv("SERVER_KEY", "secret")
    served_answerer(Endpoint(server.url, "m", "SERVER_KEY"), 50)(drawn[:1])
    assert server.headers == [("/v1/chat/completions", "Bearer secret")]
    monkeypatch.delenv("SERVER_KEY")
    with pytest.raises(InputError, match="SERVER_KEY"):
        served_answerer(Endpoint(server.url, "m", "SERVER_KEY"), 50)


def test_a_server_that_keeps_failing_ends_the_call_without_further_waits(serve, drawn):
    def respond(body):
        return (400, {"error": "no such model"}) if question_of(body) == drawn[0].question else (503, {})

    server = serve(respond)
    began = time.monotonic()
    with pytest.raises(RunError, match=r"the server at .* \(m\) did not answer: HTTP 400"):
        served_answerer(Endpoint(server.url, "m", backoff_s=30, concurrency=2), 50)(drawn)
    assert time.monotonic() - began < 5
    assert len(server.requests) < len(drawn)


def test_a_stumbling_server_is_asked_again(serve, drawn):
    stumbles = iter([(503, {}), (429, {})])
    server = serve(lambda body: next(stumbles, None) or repeat(body))
    waits = []
    client = Client(Endpoint(server.url, "m"), "server", waits.append)
    kept = []
    answers = client.ask(drawn[:1], lambda _: {"messages": [{"content": [{"text": "?"}]}]}, lambda *it: kept.append(it))
    assert (answers[0].text.strip(), waits, kept) == ("You asked: ?", [1.0, 2.0], [(drawn[0], answers[0])])


def test_a_picture_that_is_gone_is_named(serve, drawn):
    server = serve(repeat)
    with pytest.raises(InputError, match=r"gone\.png"):
        served_answerer(Endpoint(server.url, "m"), 50)(
            [drawn[0].model_copy(update={"images": {"CAM_FRONT": "/gone.png"}})]
        )
    with pytest.raises(InputError, match="at least one picture"):
        served_answerer(Endpoint(server.url, "m"), 50)([drawn[0].model_copy(update={"images": {}})])


def test_the_verb_asks_a_server_and_goes_on_after_a_failure(serve, tmp_path):
    samples = tiny.samples(tiny.pictures(tmp_path))
    write_samples(tmp_path / "val.jsonl", samples, tmp_path)
    broken = serve(lambda body: (401, {}) if question_of(body) == samples[4].question else repeat(body))
    out = tmp_path / "p.jsonl"

    def arguments(url):
        where = ["--data", str(tmp_path), "--format", "jsonl", "--file", "val", "--out", str(out)]
        return ["predict", url, *where, "--served-model", "big", "--batch-size", "3"]

    failed = CliRunner().invoke(app, arguments(broken.url))
    assert isinstance(failed.exception, RunError)
    assert len(read_jsonl(out, Prediction)) == 3
    whole = serve(repeat)
    done = CliRunner().invoke(app, arguments(whole.url), catch_exceptions=False)
    assert (done.output, len(whole.requests)) == (f"5 new answers, 8 in all: {out}\n", 5)
    rows = read_jsonl(out, Prediction)
    assert [row.id for row in rows] == [sample.id for sample in samples]
    assert {(row.model, row.decode, row.tokens) for row in rows} == {("big", "endpoint", 7)}
    refused = CliRunner().invoke(app, [*arguments(whole.url), "--decode", "beam-4"])
    assert isinstance(refused.exception, InputError)


def test_asking_a_server_needs_no_torch():
    code = "import sys, drivedistill.evaluate.endpoint, drivedistill.evaluate.judge; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
