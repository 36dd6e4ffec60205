"""The server speaks SimulEval's agent protocol, and what its client records is what a run records."""

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from typing import Any

import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from tiny_fixtures import FakeSession, sentence

from streamllm.engine.limits import Limits
from streamllm.engine.loop import translate
from streamllm.engine.paradigms.revised import Revised
from streamllm.engine.stream import SessionLike
from streamllm.live.simuleval import AgentServer, ProtocolError, Segment, Sentence, agent_server, as_sent
from streamllm.models.loading import ModelConfig
from streamllm.policies import Full, Oracle, WaitK
from streamllm.records import Emission, Example, Hypothesis, Policy, Trace
from streamllm.units import Unit

SENTENCES = ["A man is riding a bicycle.", "Two dogs run, and a child plays with a ball on the beach."]


def counting(read: int, written: int, ended: bool) -> str | None:
    """A model that writes t1 … t5, whatever it has read."""
    return f"t{written + 1}" if written < 5 else None


def extending(*reads: int, units: int = 4) -> Callable[[int, int], Hypothesis]:
    """A model whose last unit goes on, with a comma, after each of these reads."""

    def drafts(read: int, written: int) -> Hypothesis:
        comma = [Emission(",", extends=True)] if read in reads and written else []
        return (*comma, *(Emission(f"t{i}") for i in range(written + 1, units + 1)))

    return drafts


def fake(policy: Policy, answer: Any = counting, limits: Limits = Limits(), units: Unit = "word") -> Sentence:
    return Sentence(FakeSession(answer), policy.start(Example("", "", "")), limits, units, units)


def evaluate(source: list[str], put: Callable[[str], None], get: Callable[[], str]) -> tuple[list[str], list[int]]:
    """What SimulEval 1.1.4's remote evaluator does with a sentence; the words and delays that it records."""
    words: list[str] = []
    delays: list[int] = []
    step = 0
    for _ in range(2 * len(source) + 10):
        segment: dict[str, Any] = {"index": 0, "content": [], "finished": True, "is_empty": True, "data_type": None}
        if step < len(source):
            segment = {"index": step, "content": source[step], "is_empty": False, "data_type": "text"}
            segment["finished"] = step == len(source) - 1
            step += 1
        put(json.dumps(segment | {"tgt_lang": None, "config": {}}))
        answer = json.loads(get())
        assert set(answer) == {"index", "content", "finished", "is_empty", "data_type", "tgt_lang", "config"}
        if not answer["is_empty"]:
            assert answer["data_type"] == "text"
            new = answer["content"].split()
            words += new
            delays += [step] * len(new)
        if answer["finished"]:
            return words, delays
    raise AssertionError("the sentence does not end")


def drive(served: Sentence, source: str) -> tuple[list[str], list[int]]:
    return evaluate(
        source.split(), lambda body: served.push(Segment.from_json(body.encode())), lambda: served.pop().to_json()
    )


def of_run(trace: Trace) -> tuple[list[str], list[int]]:
    return list(trace.units), list(trace.delays)


# One sentence


@pytest.mark.parametrize("policy", [WaitK(1), WaitK(3), Full()])
@pytest.mark.parametrize("text", SENTENCES)
def test_a_client_records_the_words_and_delays_of_a_run(policy: Policy, text: str) -> None:
    model = ModelConfig("bundled:tiny-en-de").load()
    example = Example("1", text, "")
    served = Sentence(model.session(), policy.start(example))
    assert drive(served, text) == of_run(translate(model.session(), example, policy))


def test_nothing_is_popped_before_the_policy_writes() -> None:
    served = fake(WaitK(2))
    served.push(Segment("a"))
    assert served.pop() == Segment("", finished=False)
    served.push(Segment("b"))
    assert served.pop() == Segment("t1", finished=False)
    assert served.pop() == Segment("", finished=False)


def test_units_that_are_written_together_are_popped_together() -> None:
    served = fake(WaitK(2))
    served.push(Segment("a b c"))
    assert served.pop() == Segment("t1 t2")


def test_the_last_unit_may_say_that_it_is_the_last() -> None:
    served = fake(WaitK(3))
    served.push(Segment("a"))
    served.push(Segment("b", finished=True))
    assert served.pop() == Segment("t1 t2 t3 t4 t5", finished=True)


def test_the_end_may_come_after_the_last_unit() -> None:
    served = fake(WaitK(3))
    served.push(Segment("a"))
    assert served.pop() == Segment("")
    served.push(Segment(finished=True))
    assert served.pop() == Segment("t1 t2 t3 t4 t5", finished=True)


def test_after_the_end_of_the_target_there_is_nothing_more() -> None:
    served = fake(Full())
    served.push(Segment("a", finished=True))
    served.pop()
    assert served.pop() == Segment("", finished=True)


def test_a_sentence_may_end_before_its_source() -> None:
    served = fake(WaitK(1), lambda read, written, ended: None, Limits(early_stop="stop"))
    served.push(Segment("a"))
    assert served.pop() == Segment("", finished=True)
    served.push(Segment("b"))
    assert served.pop() == Segment("", finished=True)


def test_an_empty_source_is_a_sentence_too() -> None:
    assert drive(fake(WaitK(1)), "") == (["t1", "t2", "t3", "t4", "t5"], [0] * 5)


def test_source_after_its_end_is_refused() -> None:
    served = fake(WaitK(1))
    served.push(Segment("a", finished=True))
    served.push(Segment(finished=True))
    with pytest.raises(ProtocolError, match="'b' comes after the end of the source: POST /reset"):
        served.push(Segment("b"))


def test_characters_are_units_where_asked_for() -> None:
    served = fake(WaitK(2), lambda read, written, ended: "你好吗"[written] if written < 3 else None, units="character")
    served.push(Segment("一二三"))
    assert served.pop() == Segment("你好")


def test_the_error_of_a_model_is_not_the_end_of_the_sentence() -> None:
    def broken(read: int, written: int, ended: bool) -> str | None:
        raise ArithmeticError("no such thing")

    served = fake(WaitK(1), broken)
    served.push(Segment("a"))
    for _ in range(2):
        with pytest.raises(ArithmeticError, match="no such thing"):
            served.pop()


def test_a_sentence_that_is_given_up_is_over() -> None:
    ended: list[bool] = []

    class Watched(FakeSession):
        def __del__(self) -> None:
            ended.append(True)

    served = Sentence(Watched(counting), WaitK(2).start(sentence(0)))
    served.push(Segment("a"))
    served.pop()
    served.close()
    del served
    assert ended


# Units that are extended


def test_the_rest_of_an_extended_unit_is_a_word_of_its_own() -> None:
    """The run knows what came later: t1, whole after the second read. A client has been given t1 before."""
    text = "s1 s2 s3"
    policy = WaitK(1)
    trace = translate(FakeSession(drafts=extending(2)), Example("1", text, ""), policy)
    assert of_run(trace) == (["t1,", "t2", "t3", "t4"], [2, 2, 3, 3])
    served = Sentence(FakeSession(drafts=extending(2)), policy.start(sentence(0)))
    assert drive(served, text) == (["t1", ",", "t2", "t3", "t4"], [1, 2, 2, 3, 3])
    assert as_sent(trace) == (["t1", ",", "t2", "t3", "t4"], [1, 2, 2, 3, 3])


def test_a_unit_that_is_extended_before_it_is_popped_is_one_word() -> None:
    served = Sentence(FakeSession(drafts=extending(2)), WaitK(1).start(sentence(0)))
    served.push(Segment("a b"))
    assert served.pop() == Segment("t1, t2")


def test_a_unit_that_is_extended_at_the_end_of_the_source_is_one_word() -> None:
    """SimulEval says with the last unit that it is the last, and a delay counts units only."""
    text = "s1"
    trace = translate(FakeSession(drafts=extending(1, units=2)), Example("1", text, ""), Oracle([1, 2]))
    assert [event.kind for event in trace.events] == ["read", "write", "end", "extend", "write", "stop"]
    served = Sentence(FakeSession(drafts=extending(1, units=2)), Oracle([1, 2]).start(sentence(0)))
    assert drive(served, text) == of_run(trace) == as_sent(trace) == (["t1,", "t2"], [1, 1])


def test_a_unit_that_is_written_before_anything_is_read_has_the_delay_of_the_first_pop() -> None:
    trace = translate(FakeSession(counting), sentence(2), Oracle([0]))
    assert trace.delays[:2] == (0, 2)
    recorded = drive(Sentence(FakeSession(counting), Oracle([0]).start(sentence(2))), "s1 s2")
    assert recorded == as_sent(trace) == (["t1", "t2", "t3", "t4", "t5"], [1, 2, 2, 2, 2])


@given(
    source=st.integers(0, 6),
    delays=st.lists(st.integers(0, 7), max_size=6),
    reads=st.sets(st.integers(0, 6)),
    units=st.integers(0, 6),
    limits=st.builds(Limits, st.sampled_from(["read", "stop"]), st.just(1.0), st.integers(1, 4)),
)
def test_a_client_always_records_what_the_trace_says_was_sent(
    source: int, delays: list[int], reads: set[int], units: int, limits: Limits
) -> None:
    policy = Oracle(delays)
    example = sentence(source)

    def session() -> SessionLike:
        return FakeSession(drafts=extending(*reads, units=units))

    trace = translate(session(), example, policy, limits)
    recorded = drive(Sentence(session(), policy.start(example), limits), example.source)
    assert recorded == as_sent(trace)
    if all(event.kind != "extend" for event in trace.events) and 0 not in trace.delays:
        assert recorded == of_run(trace)


# Over HTTP


class Client:
    """A connection for each request, as SimulEval makes them."""

    def __init__(self, port: int):
        self._port = port

    def ask(self, method: str, path: str, body: str | bytes | None = None) -> tuple[int, str]:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=120)
        try:
            connection.request(method, path, body.encode() if isinstance(body, str) else body)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def reset(self) -> None:
        assert self.ask("POST", "/reset") == (200, "")

    def put(self, body: str) -> None:
        assert self.ask("PUT", "/input", body) == (200, "")

    def get(self) -> str:
        status, body = self.ask("GET", "/output")
        assert status == 200
        return body

    def content(self) -> Any:
        return json.loads(self.get())["content"]


def text(content: str, finished: bool = False) -> str:
    return json.dumps({"data_type": "text", "content": content, "finished": finished})


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[], Sentence]], Client]]:
    """Starts servers on free ports."""
    started: list[tuple[AgentServer, threading.Thread]] = []

    def start(new_sentence: Callable[[], Sentence]) -> Client:
        server = AgentServer(new_sentence, port=0, info="fake [text -> text]")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        started.append((server, thread))
        return Client(server.server_port)

    yield start
    for server, thread in started:
        server.shutdown()
        thread.join()
        server.server_close()


Serve = Callable[[Callable[[], Sentence]], Client]


def test_one_sentence_after_the_other(serve: Serve) -> None:
    client = serve(lambda: fake(WaitK(2)))
    for _ in range(2):
        client.reset()
        words, delays = evaluate(["a", "b", "c"], client.put, client.get)
        assert (words, delays) == (["t1", "t2", "t3", "t4", "t5"], [2, 3, 3, 3, 3])


def test_a_reset_in_the_middle_of_a_sentence_begins_a_new_one(serve: Serve) -> None:
    client = serve(lambda: fake(WaitK(2)))
    client.put(text("a b"))
    assert client.content() == "t1"
    client.put(text("c"))
    client.reset()
    assert client.content() == []
    client.put(text("a b"))
    assert client.content() == "t1"


def test_the_first_sentence_needs_no_reset(serve: Serve) -> None:
    client = serve(lambda: fake(WaitK(1)))
    client.put(text("a"))
    assert client.content() == "t1"


def test_the_server_says_what_it_is(serve: Serve) -> None:
    assert serve(lambda: fake(Full())).ask("GET", "/") == (200, '{"info": "fake [text -> text]"}')


def test_text_comes_and_goes_in_any_script(serve: Serve) -> None:
    source = "größe 你好 🚲 é"
    sessions: list[FakeSession] = []

    def new_sentence() -> Sentence:
        # Says what it reads.
        sessions.append(
            FakeSession(lambda read, written, ended: sessions[-1].calls[written][1] if written < read else None)
        )
        return Sentence(sessions[-1], Full().start(sentence(0)))

    client = serve(new_sentence)
    for body in (text(source, finished=True), json.dumps(json.loads(text(source, True)), ensure_ascii=False)):
        client.reset()
        client.put(body)
        assert client.content() == source


BAD = [
    ("", "the body is not JSON"),
    ("{", "the body is not JSON"),
    (b"\xff\xfe\xfd", "the body is not JSON"),
    ("[]", r"\[\] is no segment"),
    ('{"content": "a"}', "is no segment: put an object such as"),
    ('{"data_type": "speech", "content": [0.1]}', "data_type is 'speech'; accepted are 'text', and null"),
    ('{"data_type": "text"}', "content is None; accepted is a string"),
    ('{"data_type": "text", "content": ["a"]}', r"content is \['a'\]; accepted is a string"),
    ('{"data_type": "text", "content": "a", "finished": "no"}', "finished is 'no'; accepted are true and false"),
    ('{"data_type": "text", "content": "\\ud83d"}', "half a character"),
]


@pytest.mark.parametrize(("body", "message"), BAD)
def test_a_bad_segment_is_answered_in_one_line_and_changes_nothing(
    serve: Serve, body: str | bytes, message: str
) -> None:
    client = serve(lambda: fake(WaitK(1)))
    client.put(text("a"))
    status, answer = client.ask("PUT", "/input", body)
    assert status == 400
    assert re.search(message, json.loads(answer)["error"])
    assert "\n" not in answer + json.loads(answer)["error"]
    assert client.content() == "t1"


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/outputs", 404, "there is no /outputs; there are: GET /, POST /reset, PUT /input, GET /output"),
        ("POST", "/input", 405, "POST /input is not accepted: use PUT /input"),
        ("DELETE", "/reset", 405, "DELETE /reset is not accepted: use POST /reset"),
    ],
)
def test_other_requests_are_told_what_there_is(serve: Serve, method: str, path: str, status: int, message: str) -> None:
    assert serve(lambda: fake(Full())).ask(method, path) == (status, json.dumps({"error": message}))


def numbered(index: int, **others: Any) -> str:
    """A segment as SimulEval writes it."""
    return json.dumps({"index": index, "data_type": "text", "content": "a", "finished": False} | others)


NOTHING = Segment().to_json()


def is_refused(client: Client) -> bool:
    """Whether SimulEval would stop here: it looks at no status."""
    status, body = client.ask("GET", "/output")
    with pytest.raises(ValueError, match="Expecting value"):
        json.loads(body)
    return status == 409


def evaluate_without(client: Client, missing: int) -> list[list[str]]:
    """The words of two sentences that SimulEval evaluates, where one of its requests gets lost; the first has number 0.

    Raises: ValueError: it got what is no JSON, and stopped.
    """
    numbers = itertools.count()

    def ask(method: str, path: str, body: str | None = None) -> str:
        return NOTHING if next(numbers) == missing else client.ask(method, path, body)[1]

    found = []
    for source in (["a", "b", "c"], ["d", "e"]):
        ask("POST", "/reset")
        words, _ = evaluate(source, lambda body: str(ask("PUT", "/input", body)), lambda: ask("GET", "/output"))
        found.append(words)
    return found


@pytest.mark.parametrize("missing", range(1, 12))
def test_an_evaluation_of_which_a_request_is_missing_stops(serve: Serve, missing: int) -> None:
    client = serve(lambda: fake(WaitK(2)))
    assert evaluate_without(client, 12) == [["t1", "t2", "t3", "t4", "t5"]] * 2
    with pytest.raises(ValueError, match="Expecting value"):
        evaluate_without(client, missing)


def test_the_only_word_of_a_sentence_may_not_be_missing_either(serve: Serve) -> None:
    client = serve(lambda: fake(WaitK(2)))
    client.reset()
    assert client.content() == []
    assert client.ask("PUT", "/input", numbered(0, finished=True, data_type=None, content=[]))[0] == 409
    assert is_refused(client)


def test_two_evaluators_at_once_are_both_refused_until_the_next_reset(serve: Serve) -> None:
    client = serve(lambda: fake(WaitK(1)))

    def put(index: int) -> int:
        return client.ask("PUT", "/input", numbered(index))[0]

    client.reset()  # the first
    for index in (0, 1):
        assert (put(index), client.content()) == (200, f"t{index + 1}")
    client.reset()  # the second
    assert (put(0), client.content()) == (200, "t1")
    assert put(2) == 409  # the first again
    assert is_refused(client)
    assert put(1) == 409  # the second again
    assert is_refused(client)
    client.reset()
    assert (put(0), client.content()) == (200, "t1")


@pytest.mark.parametrize(
    "body", [numbered(0, data_type="speech"), numbered(0, content=["a"]), numbered(-1), numbered(True)]
)
def test_a_refused_segment_with_an_index_loses_its_sentence(serve: Serve, body: str) -> None:
    client = serve(lambda: fake(WaitK(1)))
    assert client.ask("PUT", "/input", body)[0] == 400
    assert is_refused(client)


def test_a_client_that_does_not_count_may_push_and_ask_as_it_likes(serve: Serve) -> None:
    client = serve(lambda: fake(WaitK(2)))
    assert client.content() == []
    client.put(text("a"))
    client.put(text("b"))
    assert client.content() == "t1"
    client.put(text("c", finished=True))
    client.put(json.dumps({"data_type": None, "finished": True}))
    assert client.content() == "t2 t3 t4 t5"


def test_source_after_its_end_is_answered_in_one_line(serve: Serve) -> None:
    client = serve(lambda: fake(Full()))
    client.put(text("a", finished=True))
    status, answer = client.ask("PUT", "/input", text("b"))
    assert status == 400
    assert "POST /reset" in answer


def test_what_the_model_raises_ends_its_sentence_only(serve: Serve) -> None:
    def broken(read: int, written: int, ended: bool) -> str | None:
        raise ArithmeticError("no such\nthing")

    answers = iter([broken, counting])
    client = serve(lambda: fake(WaitK(1), next(answers)))
    client.put(text("a"))
    for _ in range(2):
        assert client.ask("GET", "/output") == (500, '{"error": "no such thing"}')
    client.reset()
    client.put(text("a"))
    assert client.content() == "t1"


@pytest.mark.parametrize("port", [-1, 70000, "2024", True])
def test_a_port_that_is_none_is_refused(port: Any) -> None:
    with pytest.raises(ValueError, match=rf"port is {port!r}; accepted are 0 \(any free port\) to 65535"):
        AgentServer(lambda: fake(Full()), port=port)


def test_a_port_that_is_taken_is_named() -> None:
    with (
        AgentServer(lambda: fake(Full()), port=0) as first,
        pytest.raises(OSError, match=r"cannot listen on 127.0.0.1:\d+ \(.*in use.*\): choose another port"),
    ):
        AgentServer(lambda: fake(Full()), port=first.server_port)


def test_a_policy_that_needs_the_sentence_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="there are no delays for example 'served-0'"):
        agent_server(ModelConfig("bundled:tiny-en-de").load(), Oracle({"1": [1, 2]}), port=0)


def test_what_takes_back_what_it_has_shown_is_not_served() -> None:
    model = ModelConfig("bundled:tiny-en-de").load(paradigm=Revised())
    with pytest.raises(ValueError, match="SimulEval's protocol cannot: choose paradigm=group"):
        agent_server(model, WaitK(2), port=0)


def test_the_program_serves_what_the_runner_runs() -> None:
    """The whole way: configuration, model, server, protocol; ended as a person ends it."""
    command = [sys.executable, "-m", "streamllm", "serve", "policy=waitk", "k=3", "port=0"]
    with subprocess.Popen(command, cwd=ROOT, env=os.environ, stdout=subprocess.PIPE, text=True) as program:
        try:
            assert program.stdout is not None
            line = program.stdout.readline()
            found = re.search(r"serving WaitK\(k=3.*\) at http://127\.0\.0\.1:(\d+); Ctrl-C ends it", line)
            assert found, line
            client = Client(int(found[1]))
            model = ModelConfig("bundled:tiny-en-de").load()
            for source in SENTENCES:
                client.reset()
                recorded = evaluate(source.split(), client.put, client.get)
                assert recorded == as_sent(translate(model.session(), Example("1", source, ""), WaitK(3)))
            program.send_signal(signal.SIGINT)
            assert program.wait(timeout=120) == 130
        finally:
            program.kill()
