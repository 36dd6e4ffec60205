"""Who may connect, what a client may choose and how much it may send; and what the page says of the protocol."""

import pytest
from conftest import ROOT

from streamllm.live.access import Access, is_loopback
from streamllm.live.protocol import ProtocolFault, schemas
from streamllm.live.quotas import Quotas, Rate

TOKEN = "0123456789abcdef"


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.0.7", False),
        ("localhost.evil.example", False),
    ],
)
def test_only_the_loopback_addresses_are_this_machine_alone(host: str, local: bool) -> None:
    assert is_loopback(host) == local
    if local:
        assert Access(host).accepts(None)
    else:
        with pytest.raises(ValueError, match=r"there is no token: set STREAMLLM_TOKEN"):
            Access(host)
        assert Access(host, TOKEN).accepts(TOKEN)
        assert not Access(host, TOKEN).accepts(None)


def test_a_short_token_is_refused() -> None:
    with pytest.raises(ValueError, match="the token has 6 characters; accepted are at least 16"):
        Access("127.0.0.1", "secret")


def test_elsewhere_a_page_of_ours_may_connect_by_any_name() -> None:
    access = Access("0.0.0.0", TOKEN)
    assert access.allows_origin({"host": "live.example"})
    assert access.allows_origin({"host": "live.example", "origin": "https://live.example"})
    assert not access.allows_origin({"host": "live.example", "origin": "https://evil.example"})
    assert not access.allows_origin({"host": "live.example", "origin": "file://live.example"})


def test_a_rate_lets_a_burst_through_and_then_what_is_allowed() -> None:
    now = [0.0]
    rate = Rate(2, burst=3, clock=lambda: now[0])
    assert rate.take(6)
    assert not rate.take(1)
    now[0] = 1.0
    assert rate.take(2)
    assert not rate.take(1)
    now[0] = 100.0
    assert not rate.take(7)
    assert rate.take(6)


@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan"), True, "many"])
def test_a_quota_is_a_number_above_zero(value: object) -> None:
    with pytest.raises(ValueError, match=r"quotas\.streams is .*; accepted is a number above 0"):
        Quotas(streams=value)  # type: ignore[arg-type]


def test_the_page_has_the_schemas_of_today() -> None:
    import make_protocol

    assert make_protocol.PAGE == ROOT / "docs" / "serve.md"
    assert make_protocol.page() == make_protocol.PAGE.read_text("utf-8"), "run scripts/make_protocol.py"
    assert "input_text_buffer.append" in schemas()


def test_a_choice_takes_listed_policies_and_numbers_in_their_ranges() -> None:
    pytest.importorskip("mlx.core")
    from streamllm.live.service import Choice, Choices
    from streamllm.policies import Confidence, Full, WaitK

    choices = Choices(
        {
            "waitk": Choice(WaitK, {"k": (1, 9)}, {"k": 3}),
            "confidence": Choice(Confidence, {"threshold": (0.5, 0.9)}, {"threshold": 0.8}),
            "full": Choice(Full),
        }
    )
    assert choices.named({}) == ({"name": "waitk", "k": 3}, WaitK(3))
    assert choices.named({"k": 5.0}) == ({"name": "waitk", "k": 5}, WaitK(5))
    assert choices.named({"name": "confidence", "threshold": 0.6})[1] == Confidence(0.6)
    for wanted in ({"name": "full", "k": 1}, {"name": "confidence", "threshold": 0.95}, {"name": "confidence", "k": 1}):
        with pytest.raises(ProtocolFault) as fault:
            choices.named(wanted)
        assert fault.value.close is None
