"""The service on real sockets of this machine: what clients are told, and how each fault ends."""

import json
import socket
import time
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest

pytest.importorskip("starlette", reason="the extra serve is not installed")
pytest.importorskip("uvicorn", reason="the extra serve is not installed")
pytest.importorskip("websockets", reason="the extra serve is not installed")

from serving import TOKEN, Running, Serve, alone, faults, hear, model, say, serve, until_end, words
from test_simuleval_server import SENTENCES, Client, evaluate
from websockets.sync.client import connect

from streamllm import client as our_client
from streamllm.engine.loop import translate
from streamllm.live.access import Access
from streamllm.live.quotas import Quotas
from streamllm.live.simuleval import as_sent
from streamllm.models.model import StreamingModel
from streamllm.policies import WaitK
from streamllm.records import Example

__all__ = ["Running", "model", "serve"]  # fixtures, and what other tests take from here


# --- streams


def test_interleaved_streams_are_told_what_a_run_records(serve: Serve, model: StreamingModel) -> None:
    running = serve()
    with ExitStack() as closes:
        sockets = [closes.enter_context(running.connect()) for _ in SENTENCES * 2]
        for each in sockets:
            assert hear(each)["type"] == "session.created"
        left = [text.split() for text in SENTENCES * 2]
        while any(left):
            for socket, source in zip(sockets, left, strict=True):
                if source:
                    say(socket, "input_text_buffer.append", text=f" {source.pop(0)}")
                    say(socket, "input_text_buffer.commit", final=not source)
        for socket, text in zip(sockets, SENTENCES * 2, strict=True):
            messages = until_end(socket)
            assert words(messages) == alone(model, text)
            assert " ".join(each["unit"] for each in messages if each["type"] == "read") == text
            assert messages[-1]["reason"] == "end_token"


def test_our_client_chooses_a_policy_between_sentences(serve: Serve, model: StreamingModel) -> None:
    with our_client.Client(serve().address) as client:
        assert client.session["policies"] == {"waitk": {"k": [1, 9]}}
        assert (client.session["revises"], client.session["documents"]) == (False, False)
        for k in (3, 1):
            if k != 3:
                client.choose({"name": "waitk", "k": k})
            for word in SENTENCES[0].split():
                client.send(word)
            client.end()
            assert words(list(client.sentence())) == alone(model, SENTENCES[0], k)


def test_nothing_is_read_before_it_is_committed_and_what_is_cleared_never(serve: Serve) -> None:
    with serve().connect() as socket:
        hear(socket)
        say(socket, "input_text.append", text="A wo")
        say(socket, "input_text.append", text="man runs")
        say(socket, "input_text.clear")
        say(socket, "input_text.append", text="A man")
        say(socket, "input_text.commit")
        say(socket, "input_text.append", text=" gone", event_id="x")
        say(socket, "input_text.clear")
        say(socket, "input_text.commit", text="sits.", final=True)
        assert [each["unit"] for each in until_end(socket) if each["type"] == "read"] == ["A", "man", "sits."]


def test_a_choice_that_is_not_listed_is_refused_and_the_stream_goes_on(serve: Serve) -> None:
    with serve().connect() as socket:
        hear(socket)
        for policy, said in [
            ({"name": "os.system"}, "policy.name is 'os.system'; accepted are waitk"),
            ({"name": "waitk", "k": 10}, "policy.k is 10; accepted is a whole number from 1 to 9"),
            ({"k": 2.5}, "policy.k is 2.5; accepted is a whole number from 1 to 9"),
            ({"k": "3"}, "policy.k is '3'; accepted is a whole number from 1 to 9"),
            ({"_target_": "os.system"}, "policy._target_ is no number of waitk; accepted are k"),
        ]:
            say(socket, "session.update", policy=policy, event_id="one")
            message = hear(socket)
            assert (message["type"], message["code"], message["event_id"]) == ("error", "wrong_choice", "one")
            assert message["message"] == said
        say(socket, "session.update", policy={"k": 2})
        assert hear(socket)["policy"] == {"name": "waitk", "k": 2}


# --- faults


def test_one_stream_too_many_is_told_to_try_again_later(serve: Serve) -> None:
    running = serve(Quotas(streams=1))
    with running.connect() as first, running.connect() as second:
        hear(first)
        assert faults(second) == ("full", 1013)
    while running.service.open_streams:
        time.sleep(0.01)
    with running.connect() as third:
        assert hear(third)["type"] == "session.created"


def test_who_sends_nothing_is_closed(serve: Serve) -> None:
    with serve(Quotas(idle=0.2)).connect() as socket:
        assert faults(socket) == ("idle", 4408)


def test_who_reads_nothing_is_closed(serve: Serve) -> None:
    """What waits to be sent is bounded, whatever the sockets' buffers hold."""
    running = serve(Quotas(unsent=3))
    with running.connect() as socket:
        hear(socket)
        say(socket, "session.update", policy={"k": 9})
        hear(socket)
        say(socket, "input_text_buffer.commit", text="a b c d e f g h i")  # nine reads are told at once
        assert faults(socket) == ("too_slow", 4408)


def test_a_client_that_is_gone_leaves_nothing(serve: Serve) -> None:
    running = serve()
    bare = socket.create_connection(("127.0.0.1", running.port))  # and says nothing
    with running.connect() as gone:
        hear(gone)
        say(gone, "input_text_buffer.commit", text="A man is")
        hear(gone)
        gone.socket.close()  # without taking leave
    while running.service.open_streams or running.service.streams.under_way:
        time.sleep(0.01)
    bare.close()


# --- who may connect


def test_a_token_is_wanted_where_there_is_one(serve: Serve) -> None:
    running = serve(Quotas(token=0.3), Access("127.0.0.1", TOKEN))
    wrong = {"Authorization": "Bearer another token of some length"}
    with running.connect(additional_headers=wrong) as socket:
        assert faults(socket) == ("token", 4401)
    with running.connect() as socket:  # and says nothing
        assert faults(socket) == ("token", 4401)
    with running.connect() as socket:
        say(socket, "input_text_buffer.append", text="a")
        assert faults(socket) == ("token", 4401)
    with running.connect() as socket:
        say(socket, "session.update", token=TOKEN)
        assert hear(socket)["type"] == "session.created"
    with our_client.Client(running.address, TOKEN) as client:
        assert client.session["protocol"] == 1
    query = running.address + "?token=" + TOKEN.replace(" ", "%20")
    with connect(query, open_timeout=60) as socket:
        assert hear(socket)["type"] == "session.created"
    assert running.get("/metrics")[0] == 401
    assert running.get("/metrics", Authorization=f"Bearer {TOKEN}")[0] == 200


def test_pages_of_others_may_not_connect(serve: Serve) -> None:
    running = serve(access=Access("127.0.0.1", origins=("https://talks.example",)))
    for origin, fits in [
        ("https://evil.example", False),
        ("null", False),
        ("https://talks.example", True),
        (f"http://127.0.0.1:{running.port}", True),
        (f"http://127.0.0.1:{running.port + 1}", False),
    ]:
        with running.connect(origin=origin) as socket:
            if fits:
                assert hear(socket)["type"] == "session.created"
            else:
                assert faults(socket) == ("origin", 4403)
    # A name of somebody else's that points here.
    assert running.get("/", Host="evil.example")[0] == 403


# --- around it


def test_health_and_metrics_say_what_happens(serve: Serve) -> None:
    running = serve()
    with running.connect() as socket:
        hear(socket)
        assert json.loads(running.get("/health")[1]) == {"status": "ok", "protocol": 1, "streams": 1}
        say(socket, "input_text_buffer.commit", text="A woman sits.", final=True)
        messages = until_end(socket)
        status, text = running.get("/metrics")
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert status == 200
    assert values["streamllm_streams"] == "1"
    assert values["streamllm_source_units_total"] == "3"
    assert values["streamllm_target_units_total"] == str(messages[-1]["written"])
    assert float(values['streamllm_delay_seconds{quantile="0.95"}']) > 0


def test_simulevals_protocol_is_on_the_same_port(serve: Serve, model: StreamingModel) -> None:
    running = serve()
    client = Client(running.port)
    assert json.loads(client.ask("GET", "/")[1]) == {"info": "WaitK [text -> text]"}
    with running.connect() as socket:
        hear(socket)
        for source in SENTENCES:
            client.reset()
            recorded = evaluate(source.split(), client.put, client.get)
            assert recorded == as_sent(translate(model.session(), Example("1", source, ""), WaitK(3)))
            say(socket, "input_text_buffer.commit", text=source, final=True)
            assert words(until_end(socket)) == alone(model, source)
    status, text = client.ask("PUT", "/input", "no segment")
    assert (status, "the body is not JSON" in text) == (400, True)
    assert client.ask("POST", "/input")[0] == 405


def test_simulevals_client_is_refused_where_it_looks(serve: Serve) -> None:
    running = serve(Quotas(streams=1))
    client = Client(running.port)
    with running.connect() as socket:
        hear(socket)
        client.reset()
        client.put(json.dumps({"data_type": "text", "content": "a", "finished": False}))
        assert client.ask("GET", "/output") == (409, "there are 1 streams, which is all: try again later")


def test_at_its_end_the_service_takes_leave_of_each_stream(serve: Serve) -> None:
    running = serve()
    with running.connect() as under_way, running.connect() as rests:
        hear(under_way)
        hear(rests)
        say(under_way, "input_text_buffer.commit", text="A man")
        assert [hear(under_way)["unit"] for _ in range(2)] == ["A", "man"]
        running.stop()
        last = hear(under_way)
        assert (last["type"], last["reason"], last["read"]) == ("end", "shutdown", 2)
        assert faults(under_way) == ("", 1001)
        assert faults(rests) == ("", 1001)


def test_traces_are_runs_and_are_whole_up_to_the_last_event(serve: Serve, model: StreamingModel, tmp_path: Any) -> None:
    from streamllm.live.traces import keeping
    from streamllm.runs.load import load_traces

    keep = partial(keeping, tmp_path, {"policy": {"_target_": "WaitK", "k": 3}}, {}, "word", "word")()
    running = serve(keep=keep)
    with running.connect() as socket:
        stream = hear(socket)["stream"]
        say(socket, "input_text_buffer.commit", text=SENTENCES[0], final=True)
        until_end(socket)
        say(socket, "input_text_buffer.commit", text="A man is")
        heard = [hear(socket) for _ in range(4)]
        folder = tmp_path / "live-1" / stream
        events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert [(each["kind"], each["text"]) for each in events[-4:]] == [(one["type"], one["unit"]) for one in heard]
    (trace,) = load_traces(folder)
    assert trace.source == SENTENCES[0]
    ours = translate(model.session(), Example("1", SENTENCES[0], ""), WaitK(3))
    assert (trace.units, trace.delays, trace.prediction) == (ours.units, ours.delays, ours.prediction)
    assert trace.stats["forward_passes"] > 0
