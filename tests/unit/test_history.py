"""What goes back to a model: whatever an endpoint answered, the history is one that endpoints take."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any, Literal, cast

import pytest
from examples.scripted_model import ScriptedModel
from examples.scripted_model import chat as strict_chat
from examples.scripted_model import responses as strict_responses
from examples.scripted_model.profiles import PROFILES
from examples.scripted_model.quirks import QUIRKS
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from agentrun.runner import chat_turn, responses_turn
from agentrun.runner.chat import ChatCompletions
from agentrun.runner.dialect import NOTHING, AnswerFailed, Malformed
from agentrun.runner.history import LOST, History, plainest
from agentrun.runner.lenient import read_answer
from agentrun.runner.models import Item, ModelClient, Turn
from agentrun.runner.responses import Responses
from agentrun.runner.structured import parse_structured

Api = Literal["chat", "responses"]
APIS: tuple[Api, ...] = ("chat", "responses")
READERS = {"chat": chat_turn.read_turn, "responses": responses_turn.read_turn}
PATHS = {"chat": "chat/completions", "responses": "responses"}


class Speaker:
    """The part of a model's client that makes items."""

    def __init__(self, api: Api) -> None:
        self.api = api
        made: Any = ChatCompletions if api == "chat" else Responses
        self._made = made.__new__(made)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._made, name)


def history(api: Api) -> History:
    return History(cast(ModelClient, Speaker(api)), "hi")


def entries(number: int, turn: Turn) -> list[dict[str, Any]]:
    """What the fold keeps of a turn and of what follows it."""
    kept = json.loads(json.dumps(turn.items, ensure_ascii=False).encode())  # through a journal
    results = [
        {"id": f"{number}-{n}", "callId": call.id, "tool": call.name, "output": f"result {n}"}
        for n, call in enumerate(turn.calls)
    ]
    after = {"results": results[::-1]} if results else {"user": "Give the whole answer again, corrected."}
    return [{"items": kept}, after]


def body(api: Api, items: list[Item]) -> dict[str, Any]:
    return {"model": "m", "messages": items} if api == "chat" else {"model": "m", "store": False, "input": items}


def check(api: Api, items: list[Item]) -> None:
    """Raise where OpenAI would refuse ``items``."""
    read = strict_chat.read if api == "chat" else strict_responses.read
    read(json.loads(json.dumps(body(api, items))), "0", 0)


def refused(api: Api, items: list[Item]) -> bool:
    try:
        check(api, items)
    except Exception:  # noqa: BLE001  (RequestError, whatever it says)
        return True
    return False


# Every profile reads its own answers, back and forth.

LIST: dict[str, Any] = {"name": "list_all", "args": {}}
SCRIPT: dict[str, Any] = {
    "rules": [
        {"match": {"turn": 0}, "tool_calls": [LIST, {"name": "look_up", "args": {"a": "b"}}]},
        {"match": {"turn": 1}, "tool_calls": [{"name": "look_up", "args": {"a": "c"}}, LIST]},
        {"match": {"turn": 2}, "text": ""},
        {"match": {"turn": 3}, "text": "It is warm."},
        {"json": {"temp": 20}},
    ]
}
SCHEMA = {"type": "object", "required": ["temp"], "properties": {"temp": {"type": "number"}}}


def speak(api: Api, profile: str, script: dict[str, Any]) -> tuple[list[Turn], list[int]]:
    """Five turns with an endpoint; the turns, and the statuses that it answered with."""
    server = ScriptedModel(script)
    told: list[dict[str, Any]] = []
    kept = history(api)
    turns: list[Turn] = []
    statuses: list[int] = []
    for number in range(1, 6):
        raw = json.dumps(body(api, kept.items(told))).encode()
        reply = server.answer("POST", f"/{profile}/v1/{PATHS[api]}", {}, raw)
        statuses.append(reply.status)
        if reply.status != 200:
            raise AssertionError(f"{profile}, turn {number}: {reply.payload!r} to {raw!r}")
        answer = read_answer(reply.payload or b"")
        assert isinstance(answer, dict)
        turns.append(READERS[api](answer))
        told += entries(number, turns[-1])
        # A resumed attempt makes the same of the records.
        assert history(api).items(told) == kept.items(told)
    return turns, statuses


TAKES_BACK = [(name, api) for name, p in PROFILES.items() for api in p.apis if name != "groq"]
"""Groq refuses its own answers as they came: it gets the plainest form."""


@pytest.mark.parametrize(("profile", "api"), TAKES_BACK)
def test_an_endpoint_takes_back_what_it_answered(profile: str, api: Api) -> None:
    first, second, empty, words, last = speak(api, profile, SCRIPT)[0]
    legacy = profile == "legacy"  # which has one call a turn
    assert [c.args for c in first.calls] == ([{}] if legacy else [{}, {"a": "b"}])
    assert [c.args for c in second.calls] == ([{"a": "c"}] if legacy else [{"a": "c"}, {}])
    assert not empty.text
    assert words.text == "It is warm."
    assert parse_structured(last.text or "", SCHEMA) == ({"temp": 20}, [])


FOREIGN = {"reasoning-content", "reasoning", "reasoning-details", "signatures", "index", "content-thinking", "id-long"}
"""Quirks that have to go back to who has them, and that OpenAI refuses."""


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("name", [name for name in QUIRKS if name not in {"finish-error", "reasoning-text"}])
def test_openai_takes_back_each_quirk(name: str, api: Api) -> None:
    script = {"rules": [{**rule, "quirks": [name]} for rule in SCRIPT["rules"]]}
    if api == "chat" and name in FOREIGN:
        with pytest.raises(AssertionError, match=r"turn [2-5]"):
            speak(api, "openai", script)
    elif name == "id-long":
        with pytest.raises(AssertionError, match="turn 2"):
            speak(api, "openai", script)
    else:
        speak(api, "openai", script)


# Whatever is answered.


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


ODD = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 9) | st.sampled_from(["", "a", "{}", '{"a": 1', "null", "\x00", "é"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["type", "text"]), inner, max_size=2),
    max_leaves=4,
)
PARTS = st.lists(some(type=st.sampled_from(["text", "refusal", "thinking"]), text=ODD, refusal=ODD), max_size=3)


NAMES = st.sampled_from(["", "a", "b", None, 0, "call00000", " "])
FUNCTION = some(name=ODD, arguments=ODD)
MESSAGE = some(
    role=st.sampled_from(["assistant", None, "model"]),
    content=ODD | PARTS,
    refusal=ODD,
    tool_calls=st.lists(some(id=NAMES, type=ODD, function=FUNCTION), max_size=3) | ODD,
    function_call=FUNCTION | ODD,
)
CHAT = st.fixed_dictionaries({"choices": st.lists(some(message=MESSAGE, finish_reason=ODD), min_size=1, max_size=2)})
OWN_MESSAGE = some(
    content=st.sampled_from(["", "a", None, 7, [], ["a"], {"a": 1}])
    | st.lists(some(type=st.sampled_from(["text", "refusal"]), text=ODD, refusal=ODD), max_size=3),
    refusal=ODD,
    tool_calls=st.lists(some(id=NAMES, type=ODD, function=FUNCTION), max_size=3) | st.none(),
    function_call=FUNCTION | st.none(),
)
OWN = st.fixed_dictionaries({"choices": st.lists(some(message=OWN_MESSAGE), min_size=1, max_size=2)})
ITEM = some(
    type=st.sampled_from(["message", "function_call", "reasoning", "web_search_call", None]),
    id=st.sampled_from(["", None, 0, "x"]),
    call_id=NAMES,
    role=st.sampled_from(["assistant", None, "user"]),
    name=ODD,
    arguments=ODD,
    content=ODD | PARTS,
    status=st.sampled_from(["completed", None]),
    summary=st.just([]) | st.none(),
    encrypted_content=st.sampled_from([None, "", "sealed"]),
    phase=st.none(),
)
RESPONSE = st.fixed_dictionaries({"output": st.lists(ITEM, max_size=3) | ODD, "status": st.just("completed") | ODD})


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(APIS), st.data())
def test_whatever_was_answered_its_plainest_form_is_taken(api: Api, data: st.DataObject) -> None:
    told: list[dict[str, Any]] = []
    for number in (1, 2):
        with suppress(Malformed, AnswerFailed):
            turn = READERS[api](data.draw(CHAT if api == "chat" else RESPONSE))
            assert len({call.id for call in turn.calls}) == len(turn.calls)
            told += entries(number, turn)
    items = history(api).items(told)
    check(api, plainest(api, items))
    other: Api = "responses" if api == "chat" else "chat"
    check(other, history(other).items(told))


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(OWN, max_size=2))
@example([{"choices": [{"message": {"content": [{"text": "a"}]}}]}])
def test_what_was_answered_with_the_apis_own_fields_is_taken(answers: list[dict[str, Any]]) -> None:
    told: list[dict[str, Any]] = []
    for number, answer in enumerate(answers, 1):
        with suppress(Malformed, AnswerFailed):
            told += entries(number, READERS["chat"](answer))
    check("chat", history("chat").items(told))


def turn_of(api: Api, answer: Any) -> list[Item]:
    answer = {"output": answer, "status": "completed", "choices": [{"message": answer}]}
    return history(api).items(entries(1, READERS[api](answer)))[1:]


@pytest.mark.parametrize("content", [None, "", " \n", [], [{"type": "text", "text": ""}], [{"type": "thinking"}], {}])
def test_a_message_that_says_nothing_becomes_one_that_every_endpoint_takes(content: Any) -> None:
    [message, _] = turn_of("chat", {"role": "assistant", "content": content})
    assert message == {"role": "assistant", "content": NOTHING if content != {} else "{}"}


@pytest.mark.parametrize(
    "output",
    [[], [{"type": "message", "content": []}], [{"type": "message", "content": None}],
     [{"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "sealed"}],
     [{"type": "reasoning", "id": "rs_1", "summary": []}], [{"type": "message", "role": "user", "content": "I say!"}]],
)  # fmt: skip
def test_a_response_that_says_nothing(output: Any) -> None:
    assert turn_of("responses", output)[:-1] == [{"type": "message", "role": "assistant", "content": NOTHING}]


def test_reasoning_goes_back_before_what_follows_it_and_without_nulls() -> None:
    reasoning = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "sealed"}
    call = {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": "{}"}
    output = [reasoning | {"status": None, "content": None}, call | {"status": None, "namespace": None}]
    assert turn_of("responses", output)[:-1] == [reasoning, call]
    assert turn_of("responses", [*output, reasoning | {"id": "rs_2"}])[:-1] == [reasoning, call]


def test_unknown_items_stay() -> None:
    found = {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"query": "x"}}
    part = {"type": "output_text", "text": "hi", "annotations": []}
    said = {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": [part]}
    assert turn_of("responses", [found, said])[:-1] == [found, said]


def test_a_message_that_is_not_whole_goes_back_as_its_text_alone() -> None:
    """vLLM takes a message in parts with an id, a status and annotations, and everybody takes a text."""
    part = {"type": "text", "text": "hi"}
    said = {"type": "message", "role": "assistant", "content": [part]}
    easy = {"type": "message", "role": "assistant", "content": "hi"}
    whole = said | {"id": "msg_1", "status": "completed"}
    sent = whole | {"content": [{"type": "output_text", "text": "hi", "annotations": []}]}
    for incomplete in (said, said | {"id": "msg_1"}, said | {"status": "completed"}, whole | {"id": None}):
        assert turn_of("responses", [incomplete])[:-1] == [easy]
    assert turn_of("responses", [said | {"phase": "commentary"}])[:-1] == [easy | {"phase": "commentary"}]
    assert turn_of("responses", [whole])[:-1] == [sent]
    assert turn_of("responses", [whole, whole])[:-1] == [sent, easy]  # the same id twice


def test_what_only_its_endpoint_can_read_goes_back() -> None:
    signed = {"google": {"thought_signature": "sealed"}}
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}, "extra_content": signed}
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]
    message = {"role": "assistant", "content": parts, "reasoning_content": "hm", "tool_calls": [call]}
    assert turn_of("chat", message)[0] == message


def test_results_meet_their_calls_whatever_the_ids_are() -> None:
    calls = [{"id": "", "function": {"name": f"f{n}", "arguments": ""}} for n in range(3)]
    message, *results, _ = [*turn_of("chat", {"tool_calls": calls}), None]
    assert message is not None
    ids = {call["id"]: call["function"]["name"] for call in message["tool_calls"]}
    assert [(ids[result["tool_call_id"]], result["content"]) for result in results if result] == [
        ("f2", "result 2"),
        ("f1", "result 1"),
        ("f0", "result 0"),
    ]


@pytest.mark.parametrize("api", APIS)
def test_ids_that_start_anew_in_each_turn_are_distinct_in_the_history(api: Api) -> None:
    if api == "chat":
        answer: Any = {"choices": [{"message": {"tool_calls": [{"id": "call_0", "function": {"name": "f"}}]}}]}
    else:
        answer = {"output": [{"type": "function_call", "id": "fc_0", "call_id": "call_0", "name": "f"}]}
    told = [entry for number in (1, 2, 3) for entry in entries(number, READERS[api](answer))]
    items = history(api).items(told)
    check(api, items)
    text = json.dumps(items)
    assert (text.count('"call_0"'), text.count('"call00000"'), text.count('"call00001"')) == (2, 2, 2)


def test_a_journal_of_a_former_version_is_told_as_it_was() -> None:
    """Its calls are named as the endpoint named them, in each turn anew, and may be named in blanks."""
    items = [{"type": "function_call", "call_id": name, "name": "f", "arguments": "{}"} for name in (" ", "a")]
    results = [{"id": f"1-{n}", "callId": name, "tool": "f", "output": f"{n}"} for n, name in ((1, "a"), (0, " "))]
    told = history("responses").items([{"items": items}, {"results": results}])[1:]
    assert [item["call_id"] for item in told] == ["call00000", "a", "a", "call00000"]
    assert [item.get("output") for item in told] == [None, None, "1", "0"]


@pytest.mark.parametrize("api", APIS)
def test_a_call_without_a_result_is_said_to_have_none(api: Api) -> None:
    items: Any = [{"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"}]
    for told in ([{"items": items}], [{"items": items}, {"user": "again"}]):
        found = history(api).items(told)
        assert LOST in json.dumps(found[2])
        check(api, found)


def test_a_history_that_was_compacted_is_told_from_its_summary() -> None:
    answer = {"choices": [{"message": {"tool_calls": [{"id": "", "function": {"name": "f"}}]}}]}
    told = [entry for number in (1, 2, 3) for entry in entries(number, READERS["chat"](answer))]
    kept = history("chat")
    kept.items(told)
    short = [{"user": "Summary"}, *told[4:]]
    assert kept.items(short) == history("chat").items(short)
    check("chat", kept.items(short))


def test_the_plainest_form_has_what_every_endpoint_takes() -> None:
    calls = [
        {"id": "call_" + "x" * 80, "index": 0, "function": {"name": "f", "arguments": {"a": 1}}, "extra_content": {}}
    ]
    message = {"content": [{"type": "thinking", "thinking": []}], "reasoning_content": "hm", "tool_calls": calls}
    told = entries(1, READERS["chat"]({"choices": [{"message": message}]}))
    told[1]["results"][0]["output"] = " "
    assert plainest("chat", history("chat").items(told))[1:] == [
        {
            "role": "assistant",
            "content": "(no text)",
            "tool_calls": [{"id": "call00000", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}],
        },
        {"role": "tool", "tool_call_id": "call00000", "content": "(empty)"},
    ]
