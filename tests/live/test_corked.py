"""Messages of one turn of the event loop go out together, in their order."""

import asyncio

import pytest

pytest.importorskip("uvicorn", reason="the extra serve is not installed")
pytest.importorskip("websockets", reason="the extra serve is not installed")

from streamllm.live.corked import Corked


class Noted:
    def __init__(self) -> None:
        self.calls: list[bytes | str] = []

    def write(self, data: bytes) -> None:
        self.calls.append(data)

    def close(self) -> None:
        self.calls.append("close")

    def is_closing(self) -> bool:
        return "close" in self.calls


def test_what_is_written_in_one_turn_goes_out_in_one_call() -> None:
    async def played() -> list[bytes | str]:
        transport = Noted()
        corked = Corked(transport, asyncio.get_running_loop())
        corked.write(b"a")
        corked.write(b"b")
        assert transport.calls == []
        await asyncio.sleep(0)
        corked.write(b"c")
        await asyncio.sleep(0)
        corked.write(b"d")
        assert not corked.is_closing()
        corked.close()
        await asyncio.sleep(0)
        return transport.calls

    assert asyncio.run(played()) == [b"ab", b"c", b"d", "close"]
