"""WhisperLiveKit's client of a translation server, fed with words as its recogniser would: run by a test in an
environment that holds whisperlivekit and websockets alone."""

import json
import sys
import time
import types
from importlib.util import find_spec

spec = find_spec("whisperlivekit")
package = types.ModuleType("whisperlivekit")
package.__path__ = list(spec.submodule_search_locations or [])  # without its own __init__, which wants PyTorch
sys.modules["whisperlivekit"] = package

from whisperlivekit.timed_objects import ASRToken, HypothesisTail  # noqa: E402
from whisperlivekit.translation_alignatt import AlignAttRemoteEngine  # noqa: E402

given = json.load(sys.stdin)
engine = AlignAttRemoteEngine(url=given["url"], source_language="en", preset=None, latency="balanced")
session = engine.new_session("de")
finals, partials = [], []


def process():
    validated, buffer = session.process()
    if validated is not None and validated.text:
        finals.append(validated.text)
    if buffer.text:
        partials.append(buffer.text)


at = 0.0
for text in given["texts"]:
    words = text.split()
    for i, word in enumerate(words):
        at += 0.3
        tail = " ".join(words[i + 1 : i + 3])
        items = [ASRToken(start=at - 0.3, end=at, text=" " + word)]
        if tail:
            items.append(HypothesisTail(start=at, end=at + 0.1, text=tail))
        session.insert_tokens(items)
        process()
        time.sleep(0.02)
for _ in range(10):
    process()
print(json.dumps({"finals": finals, "partials": partials}))
