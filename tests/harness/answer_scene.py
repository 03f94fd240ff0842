"""A step whose call is answered in a way that cannot be used."""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from agentrun.api.facts import Allowance, StepFact
from agentrun.api.keys import StepKey
from agentrun.attempt.spec import AttemptSpec
from agentrun.journal.log import EventLog, manifest_bytes, read_step
from agentrun.journal.paths import RunPath
from agentrun.plan.snapshot import Ref, Start
from agentrun.runner.attempt import run_attempt
from agentrun.runner.dispatch import work
from agentrun.runner.http_tool import HttpTool
from agentrun.runner.mailbox import Mailbox
from agentrun.runner.ports import Ports
from tests.harness.loopback import Loopback, cut, endless, hang, reply
from tests.harness.memory_store import MemoryStore
from tests.harness.planner_world import PlannerWorld
from tests.unit.record_forms import check_all

RUN, KEY = RunPath("n", "r", "0" * 32), StepKey("a")
UNDO, UNDO_BY_ID = {"name": "undo", "args": {"n": 1}}, {"name": "undo", "args": {"id": "${steps.a.output.id}"}}
PAID = {"id": "p-1"}
INPUTS: dict[str, Any] = {"orders": ["x", "y", "z"]}
FAN = {"forEach": {"items": "${inputs.orders}", "maxParallel": 3}}
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


class Scene:
    """One step that calls a tool of a real server, and what it may undo it with."""

    def __init__(
        self,
        server: Loopback,
        effect: str,
        compensate: Any = None,
        retry: int = 0,
        fields: Mapping[str, Any] | None = None,
        **http: Any,
    ) -> None:
        """``fields``: further fields of the step. Everything else in ``http`` is the tool's."""
        self.store, self.server = MemoryStore(), server
        paying = {"url": f"{server.url}/pay", **http}
        tools = [
            {"name": "pay", "effect": effect, "http": paying},
            {
                "name": "undo",
                "effect": "Once",
                "http": {"url": f"{server.url}/undo", "output": "response.body.there.is.none"},
            },
        ]
        made = {"name": "a", "tool": {"name": "pay", "args": {"n": 1}}, "retry": {"limit": retry}, **(fields or {})}
        self.step = made | ({"compensate": compensate} if compensate else {})
        about = {"v": 1, "name": "r", "namespace": "n", "uid": "0" * 32, "requestedBy": "me", "inputs": INPUTS}
        self.tools = tools
        workflow = {"tools": tools, "steps": [self.step]}
        self.store.create(RUN.manifest, manifest_bytes({**about, "workflow": workflow}))
        self.now, self.number, self.send_within = 1000.0, 0, 60.0

    def clock(self) -> float:
        self.now += 0.01
        return self.now

    async def attempt(self, key: StepKey = KEY, events: Sequence[int] = (), **refs: Ref) -> StepFact:
        self.number += 1

        async def no_sleep(_: float) -> None:
            pass

        ports = Ports(
            clock=self.clock,
            open_store=lambda _: self.store,
            send_within=self.send_within,
            open_tool=lambda tool, secret: HttpTool(tool, secret, sleep=no_sleep),
        )
        start = Start(key, self.number, refs, tuple(events), Allowance(), 60.0)
        _, fact = await run_attempt(AttemptSpec("memory", RUN, start), ports, work, Mailbox())
        check_all(read_step(self.store, RUN, key, whole=True))
        return fact

    def last(self, key: StepKey = KEY) -> dict[str, Any]:
        body: dict[str, Any] = read_step(self.store, RUN, key)[-1].body
        return body

    def planned(self, fact: StepFact, key: StepKey = KEY) -> PlannerWorld:
        """The planner's world, once the attempt of ``key`` ended so."""
        from agentrun.api.workflow import WorkflowSpec
        from agentrun.workflow.program import compile_program

        program = compile_program(WorkflowSpec.model_validate({"tools": self.tools, "steps": [self.step]}))
        world = PlannerWorld(program, inputs=INPUTS, facts={key: fact}, now=fact.at or 1000.0)
        world.go()
        return world

    def say(self, answer: str, key: StepKey = KEY, **more: Any) -> int:
        log = EventLog(self.store, RUN, self.clock)
        log.refresh()
        body = {"step": key.label, "callId": "call", "attempt": self.number, "answer": answer, "by": "ana", **more}
        assert log.append("resolved", {name: value for name, value in body.items() if value is not ...})
        return len(log.records)


NO_OUTPUT: dict[str, Any] = {"output": "response.body.payment.id"}

# The answer, the tool's http, and the words that say what is wrong with it.
FINAL = {
    "output that is not there": (reply(PAID), NO_OUTPUT, "output has no value"),
    "output of what is no JSON": (reply(b"{oops"), NO_OUTPUT, "output has no value"),
    "output of a text": (reply(b"paid", content_type="text/plain"), NO_OUTPUT, "output has no value"),
    "output of a binary": (reply(b"\x89PNG\xff", content_type="image/png"), NO_OUTPUT, "output has no value"),
    "output of nothing": (reply(b"", status=204), NO_OUTPUT, "output has no value"),
    "output that is too large": (reply(["x" * 999] * 300), {"output": "response.body"}, "larger than 256 KiB"),
    "nested too deep": (reply(b"[" * 500 + b"]" * 500), NO_OUTPUT, "output has no value"),
    "too large": (endless(b"x" * 65_536), {"maxBytes": 1000}, "larger than the tool's maxBytes"),
    "too large once unpacked": (
        reply(gzip.compress(b"x" * 9_000_000, mtime=0), content_encoding="gzip"), {}, "larger than the tool's maxBytes"
    ),
    "another coding": (reply(b"\x0b\x02\x80hi\x03", content_encoding="br"), {}, 'is encoded as "br"'),
    "no gzip": (reply(b"\x0b\x02\x80hi\x03", content_encoding="gzip"), {}, "is not the gzip"),
    "half a gzip": (reply(gzip.compress(b"x" * 999, mtime=0)[:20], content_encoding="gzip"), {}, "was cut off"),
    "see other": (reply(status=303, location="/receipt"), {}, "303 See Other to /receipt"),
}  # fmt: skip

# The connection's fault: for a call that may be repeated another try might bring the whole.
PASSING = {
    "body cut off": (cut(HEAD + b"Content-Length: 99\r\n\r\n{"), {}, "cannot be read to its end"),
    "chunks without an end": (cut(HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"), {}, "cannot be read"),
    "a chunk that is none": (cut(HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{"), {}, "illegal chunk header"),
    "a body that does not come": (hang(HEAD + b"Content-Length: 9\r\n\r\n{"), {"timeout": "400ms"}, "did not come"),
    "a head that does not end": (hang(HEAD), {"timeout": "400ms"}, "did not come within"),
    "a head that is cut off": (cut(HEAD + b"X-"), {}, "cannot be read to its end"),
    "a blank before the colon": (cut(HEAD + b"X-Powered-By : legacy\r\n\r\n{}"), {}, "illegal header line"),
    "a folded line at the start": (cut(b"HTTP/1.1 200 OK\r\n folded\r\n\r\n{}"), {}, "cannot be read"),
    "a header without a colon": (cut(HEAD + b"hello\r\n\r\n{}"), {}, "illegal header line"),
    "a head without bounds": (cut(HEAD + b"X: y\r\n" * 30_000), {}, "cannot be read to its end"),
    "two lengths": (cut(HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}"), {}, "cannot be read"),
    "no length": (cut(HEAD + b"Content-Length: many\r\n\r\n{}"), {}, "cannot be read"),
    "an odd transfer": (cut(HEAD + b"Transfer-Encoding: gzip\r\n\r\n{}"), {}, "cannot be read"),
    "a reason with a control character": (cut(b"HTTP/1.1 200 O\x00K\r\n\r\n{}"), {}, "illegal status line"),
    "hints, and then such": (
        cut(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 201 Created\r\nX y\r\n\r\n"), {}, "HTTP 201 Created"
    ),
}  # fmt: skip
EVERY = pytest.mark.parametrize(
    ("answer", "http", "words"), [*FINAL.values(), *PASSING.values()], ids=[*FINAL, *PASSING]
)
