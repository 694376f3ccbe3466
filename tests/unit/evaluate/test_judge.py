"""Judges against a small server on 127.0.0.1 that answers, refuses, stumbles and talks nonsense."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from drivedistill.evaluate.judge import Endpoint, Item, Judge, load_prompt, messages, parse_rating
from drivedistill.evaluate.judged import rate_coda, region_classes
from drivedistill.problems import InputError, RunError

ITEMS = [Item("Q?", "reference", f"answer {number}") for number in range(4)]
PROMPTS = ("drivelm", "coda_general", "coda_suggestion", "coda_region")


class Server:
    """Records requests; `respond(body, number)` gives status, headers and reply text (or raw bytes)."""

    def __init__(self, respond):
        self.requests, self.headers = [], []
        lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    number = len(outer.requests)
                    outer.requests.append(body)
                    outer.headers.append((self.path, self.headers.get("Authorization")))
                status, headers, reply = respond(body, number)
                if isinstance(reply, str):
                    reply = json.dumps({"choices": [{"message": {"content": reply}}]}).encode()
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(reply))}.items():
                    self.send_header(name, value)
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


def judge_of(server, waits=None, cache=None, **fields):
    sleep = (waits if waits is not None else []).append
    return Judge(Endpoint(server.url, "gpt-fake", **fields), cache=cache, sleep=sleep)


def last_number(body):
    return body["messages"][-1]["content"].rstrip().removesuffix("\n[The End of Prediction Text]")[-1]


def test_ratings_come_back_in_the_order_of_the_items(serve):
    server = serve(lambda body, _: (200, {}, f"{int(last_number(body)) + 60}"))
    verdicts = judge_of(server).rate(load_prompt("drivelm"), [*ITEMS, ITEMS[0]])
    assert [verdict.rating for verdict in verdicts] == [60, 61, 62, 63, 60]
    assert len(server.requests) == 4  # equal items are asked once
    body = server.requests[0]
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("gpt-fake", 0.6, 3000)
    assert server.headers[0] == ("/v1/chat/completions", None)


def test_the_key_comes_from_the_environment(serve, monkeypatch):
    server = serve(lambda *_: (200, {}, "50"))
    monkeypatch.setenv("JUDGE_KEY", "secret")
    judge = Judge(Endpoint(f"{server.url}/v1/", "m", api_key_env="JUDGE_KEY"))
    judge.rate(load_prompt("drivelm"), ITEMS[:1])
    assert server.headers[0] == ("/v1/chat/completions", "Bearer secret")
    monkeypatch.delenv("JUDGE_KEY")
    with pytest.raises(InputError, match="JUDGE_KEY"):
        Judge(Endpoint(server.url, "m", api_key_env="JUDGE_KEY"))


def test_an_address_that_is_none_is_refused():
    with pytest.raises(InputError, match="http"):
        Judge(Endpoint("localhost:8000", "m"))


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_stumbling_server_is_asked_again_with_growing_waits(serve, status):
    server = serve(lambda _, number: (status, {}, b"busy") if number < 2 else (200, {}, "70"))
    waits = []
    assert judge_of(server, waits).rate(load_prompt("drivelm"), ITEMS[:1])[0].rating == 70
    assert waits == [1.0, 2.0]


def test_retry_after_is_obeyed_up_to_a_minute(serve):
    answers = [(429, {"Retry-After": "7"}, b""), (429, {"Retry-After": "9999"}, b""), (200, {}, "70")]
    waits = []
    judge_of(serve(lambda _, number: answers[number]), waits).rate(load_prompt("drivelm"), ITEMS[:1])
    assert waits == [7.0, 60.0]


def test_a_refusal_is_not_repeated(serve):
    server = serve(lambda *_: (401, {}, b"wrong key"))
    with pytest.raises(RunError, match="401: wrong key"):
        judge_of(server).rate(load_prompt("drivelm"), ITEMS[:1])
    assert len(server.requests) == 1


def test_a_server_that_is_not_there_is_reported(serve):
    server = serve(lambda *_: (200, {}, ""))
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(RunError, match="did not answer"):
        judge_of(server, retries=1).rate(load_prompt("drivelm"), ITEMS[:1])


def test_a_time_out_is_a_failure_like_any_other(serve):
    released = threading.Event()

    def slow(body, number):
        if number == 0:
            released.wait(2)
        return 200, {}, "70"

    assert judge_of(serve(slow), timeout_s=0.3).rate(load_prompt("drivelm"), ITEMS[:1])[0].rating == 70
    released.set()


@pytest.mark.parametrize("reply", [b"<html>", b'{"error": "x"}', b'{"choices": []}'])
def test_an_answer_that_is_no_completion_is_reported(serve, reply):
    with pytest.raises(RunError, match="no chat completion"):
        judge_of(serve(lambda *_: (200, {}, reply))).rate(load_prompt("drivelm"), ITEMS[:1])


def test_a_run_that_breaks_off_goes_on_from_its_cache(serve, tmp_path):
    cache = tmp_path / "verdicts.jsonl"
    server = serve(lambda body, _: (400, {}, b"no") if last_number(body) == "2" else (200, {}, "80"))
    with pytest.raises(RunError, match=r"verdicts\.jsonl"):
        judge_of(server, cache=cache, concurrency=1).rate(load_prompt("drivelm"), ITEMS)
    with cache.open("a") as file:
        file.write('{"key": "cut o')  # the machine went down while writing
    second = serve(lambda *_: (200, {}, "80"))
    verdicts = judge_of(second, cache=cache).rate(load_prompt("drivelm"), ITEMS)
    assert [verdict.rating for verdict in verdicts] == [80] * 4
    assert 1 <= len(second.requests) <= 2
    judge_of(serve(lambda *_: pytest.fail("asked again")), cache=cache).rate(load_prompt("drivelm"), ITEMS)
    assert len(cache.read_text().splitlines()) == 4


def test_the_cache_distinguishes_prompts_and_models(serve, tmp_path):
    server = serve(lambda *_: (200, {}, "Rating: [[8]]"))
    cache = tmp_path / "verdicts.jsonl"
    for prompt in PROMPTS:
        judge_of(server, cache=cache).rate(load_prompt(prompt), ITEMS[:1])
    Judge(Endpoint(server.url, "other"), cache=cache).rate(load_prompt("drivelm"), ITEMS[:1])
    assert len(server.requests) == 5


def test_a_spoilt_cache_is_explained(tmp_path):
    (tmp_path / "cache.jsonl").write_text('{"key": "a", "reply": "1"}\nnonsense\n')
    with pytest.raises(InputError, match="line 2"):
        Judge(Endpoint("http://127.0.0.1:1", "m"), cache=tmp_path / "cache.jsonl")


@pytest.mark.parametrize(
    ("prompt", "reply", "rating"),
    [
        ("drivelm", "62", 62),
        ("drivelm", " 78.5.", 78.5),
        ("drivelm", "I rate it 85 out of 100.", 85),
        ("drivelm", "<think>maybe 20 or 30</think>41", 41),
        ("drivelm", "100", 100),
        ("drivelm", "101", None),
        ("drivelm", "-5", None),
        ("drivelm", "between 20 and 30", None),
        ("drivelm", "", None),
        ("coda_general", "Good. Rating: [[8]]", 80),
        ("coda_suggestion", "The rating is: [[3]].", 30),
        ("coda_region", "[[10]]", 100),
        ("coda_region", "Rating: 7", None),
        ("coda_region", "Rating: [[0]]", None),
        ("coda_region", "Rating: [[11]]", None),
        ("coda_region", "Rating: [[good]]", None),
        ("coda_general", "not [[2]] but Rating: [[6]]", 60),
    ],
)
def test_the_rating_in_a_reply(prompt, reply, rating):
    assert parse_rating(load_prompt(prompt), reply) == rating


def test_an_answer_cannot_fill_in_the_prompt():
    chat = messages(load_prompt("drivelm"), Item("q", "right", "{reference} \ud800"))
    assert chat[-1]["content"].endswith("correct answer: rightThis is my answer: {reference} ?")


def test_coda_examples_have_the_ratings_8_and_2():
    for name in ("coda_general", "coda_suggestion"):
        prompt = load_prompt(name)
        assert [parse_rating(prompt, example.assistant) for example in prompt.examples] == [80, 20]
        assert len(messages(prompt, ITEMS[0])) == 6
    assert load_prompt("coda_region").examples == ()


def test_ones_own_prompt_is_read_from_a_file(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(load_prompt("drivelm").model_copy(update={"name": "mine"}).model_dump_json())
    assert load_prompt(path).name == "mine"
    path.write_text('{"name": "mine"}')
    with pytest.raises(InputError, match="patterns"):
        load_prompt(path)


def test_coda_answers_are_rated_with_the_prompt_of_their_task(serve, make):
    server = serve(lambda body, _: (200, {}, "Rating: [[6]]"))
    items = [
        make(id="val_0001_general", dataset="coda_lm"),
        make(id="val_0001_suggestion", dataset="coda_lm", task="planning"),
        make(id="val_0001_region_1", dataset="coda_lm"),
    ]
    assert rate_coda(judge_of(server, concurrency=1), items) == {item.id: 60 for item in items}
    systems = [body["messages"][0]["content"] for body in server.requests]
    names = ("coda_general", "coda_suggestion", "coda_region")
    assert systems == [load_prompt(name).system for name in names]
    assert {body["temperature"] for body in server.requests} == {0}


def test_region_categories_fall_into_seven_groups():
    classes = region_classes()
    assert len(set(classes.values())) == 7
    assert (classes["bollard"], classes["moped"], classes["misc"]) == ("barrier", "vru", "miscellaneous")
