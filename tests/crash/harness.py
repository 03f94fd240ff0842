"""Running a workflow to its end through strikes, and checking the delivery contract against the outside's ledgers."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, Self

from agentrun.api.keys import StepKey
from agentrun.attempt.environment import STEP_VARIABLE
from agentrun.attempt.spec import AttemptSpec
from agentrun.documents.document import parse
from agentrun.journal.log import EventLog, read_step
from agentrun.journal.pinned import PinnedRun
from agentrun.journal.records import Record
from agentrun.journal.runs import create_run, read_facts
from agentrun.plan.planner import plan
from agentrun.plan.snapshot import Start
from agentrun.store.open import open_store
from agentrun.workflow.pinning import pin
from tests.crash import roles, zygote
from tests.crash.points import Point, Strike, Trace
from tests.crash.verify import check_journal
from tests.crash.workflows import Outside
from tests.crash.zygote import Forked, Zygote

ROUNDS_MAX = 8
"""Drivers, one after the other, that any struck run gets by with."""

OutsideFactory = Callable[[Path, ExitStack, Callable[[], None]], Outside]


class Ends(Protocol):
    """A process that ends."""

    def exit(self) -> int:
        """Wait for its end; the exit code, negative for a signal."""


@dataclass(frozen=True)
class Outcome:
    """What a run came to, in everything that must not depend on strikes."""

    ended: dict[str, Any]
    steps: dict[str, Any]
    effects: Counter[str]
    turns: int
    """Model calls whose answers were committed."""
    tool_calls: int
    """As the budget counts them: a ``Once`` call when it begins, so that one that a strike cut off counts twice."""


class World:
    """One run with an outside of its own, as a context manager."""

    def __init__(
        self,
        folder: Path,
        nursery: Zygote,
        outside: OutsideFactory,
        *,
        store: str | None = None,
        settings: Mapping[str, float] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        folder.mkdir(parents=True)
        self.folder, self.nursery = folder, nursery
        self.store_url = store or str(folder / "store")
        self.settings = dict(settings or {})
        self._more = dict(environment or {})
        self._outside = outside
        self.trace = Trace(folder / "trace.jsonl")
        self.during: Point | None = None
        """Kill whoever is in this call, once the outside has written the call down."""
        self.hold = threading.Event()
        """While cleared, the outside answers nothing."""
        self.hold.set()
        self.arrived = threading.Event()
        """Set when the outside was asked something."""
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._opened = ExitStack()
        self.outside = self._outside(self.folder, self._opened, self._recorded)
        self.store = open_store(self.store_url)
        documents = parse(self.outside.document.encode(), "workflow.yaml")
        # The same uid in every world, so that keys and names can be compared.
        manifest = pin(
            documents, {}, name="struck", namespace=None, now=time.time(), new_id=lambda: "0" * 32, requested_by="ana"
        )
        self.run = create_run(self.store, manifest)
        return self

    def __exit__(self, *_: object) -> None:
        self.hold.set()
        self._opened.close()

    @property
    def tag(self) -> str:
        return str(self.folder)

    def environment(self, strike: Strike | None) -> dict[str, str]:
        """What every process of this run is told."""
        found = {
            "PATH": os.defpath,
            "PYTHONPATH": os.pathsep.join(["operator", "."]),
            roles.STORE: self.store_url,
            roles.RUN: str(self.run),
            roles.TRACE: str(self.trace.path),
            roles.SETTINGS: json.dumps(self.settings),
            roles.STRIKE: strike.to_json() if strike else "",
            zygote.SOCKET_VARIABLE: self.nursery.path,
            zygote.TAG_VARIABLE: self.tag,
            "OPENAI_BASE_URL": self.outside.model.url,
            "OPENAI_API_KEY": "a-key",
        }
        return found | self._more

    def drive(self, strike: Strike | None = None) -> Forked:
        """A driver, forked by the zygote, as are its runners."""
        return self._fork("driver", self.environment(strike))

    def attempt(self, spec: AttemptSpec, strike: Strike | None = None) -> Forked:
        """A runner that no driver watches."""
        return self._fork("runner", self.environment(strike) | {STEP_VARIABLE: spec.to_json()})

    def _fork(self, role: str, environment: dict[str, str]) -> Forked:
        with (self.folder / f"{role}.out").open("wb") as out, (self.folder / f"{role}.err").open("ab") as err:
            process = self.nursery.fork(role, self.tag, environment, out, err)
        self._opened.callback(process.abandon)
        return process

    def said(self, role: str = "driver") -> str:
        """What the last process in ``role`` wrote to its standard output."""
        return (self.folder / f"{role}.out").read_text().strip()

    # -- a whole run ---------------------------------------------------------------------------------------------

    def carry(self, strike: Strike | None = None, start: Callable[[Strike | None], Ends] | None = None) -> None:
        """Drive the run to its end: a driver that dies is replaced, people answer what they are asked."""
        if strike is not None and strike.point.side == "during":
            self.during, strike = strike.point, None
        for _ in range(ROUNDS_MAX):
            driver = (start or self.drive)(strike)
            code = driver.exit()
            if code == -signal.SIGKILL and self.trace.fired():
                continue
            if code == roles.TROUBLE and strike is not None and strike.action in ("lost", "exists"):
                continue
            assert code == 0, f"the driver ended with {code}: {self.last_words('driver')}"
            if self.said() in ("SUCCEEDED", "FAILED"):
                return
            assert self.people(), f"the run waits for nothing that a person was asked: {self.last_words('driver')}"
        raise AssertionError(f"no end after {ROUNDS_MAX} drivers: {self.last_words('driver')}")

    def people(self) -> int:
        """Do what people are asked: approve, and look into the ledger where an outcome is unknown. How much it was."""
        log = EventLog(self.store, self.run, time.time)
        log.refresh()
        decided = {r.body["digest"] for r in log.records if r.kind == "decided"}
        done = 0
        for record in list(log.records):
            if record.kind == "approvalRequested" and record.body["request"]["digest"] not in decided:
                body = {"step": record.body["step"], "digest": record.body["request"]["digest"], "comment": ""}
                log.append("decided", body | {"by": "fin", "groups": ["finance"], "decision": "Approved"})
                done += 1
        for key, fact in read_facts(self.store, self.run).items():
            if fact.end == "waiting" and fact.unknown is not None:
                records = read_step(self.store, self.run, key, whole=True)
                intent = next(r for r in reversed(records) if r.kind == "intent")
                happened = self.outside.find(intent.body["key"])
                answer = {"answer": "retry" if happened is None else "happened", "result": happened}
                about = {"step": key.path, "callId": fact.unknown.call_id, "attempt": fact.attempt}
                log.append("resolved", {**about, **answer, "by": "fin"})
                done += 1
        return done

    def outcome(self) -> Outcome:
        """What the run came to, by its journal and by the outside."""
        log = EventLog(self.store, self.run, time.time)
        log.refresh()
        ended = {k: v for k, v in log.records[-1].body.items() if k not in ("heads", "usage")}
        facts = read_facts(self.store, self.run)
        steps = {key.label: (str(fact.outcome), _timeless(fact.output)) for key, fact in sorted(facts.items())}
        spent = log.records[-1].body["usage"]
        return Outcome(_timeless(ended), steps, self.outside.effects(), spent["modelCalls"], spent["toolCalls"])

    def check(self, undisturbed: Outcome, *, asked_again: int = 0) -> None:
        """Raise AssertionError where a promise was broken. ``asked_again``: model calls that may be repeated."""
        self.nursery.wait_gone(self.tag)
        check_journal(self.store, self.run)
        found = self.outcome()
        assert found.effects == undisturbed.effects, _difference(found.effects, undisturbed.effects)
        assert found.ended == undisturbed.ended, f"ended {found.ended}, not {undisturbed.ended}"
        assert found.steps == undisturbed.steps, f"steps {found.steps}, not {undisturbed.steps}"
        assert found.turns == undisturbed.turns, f"{found.turns} turns, not {undisturbed.turns}"
        assert 0 <= found.tool_calls - undisturbed.tool_calls <= 1, f"{found.tool_calls} tool calls"
        self.outside.check_repeats()
        asked = Counter(line["digest"] for line in self.outside.model.ledger)
        again = sum(count - 1 for count in asked.values())
        assert again <= asked_again, f"{again} model calls were repeated, where {asked_again} may be"

    def unknown_asked(self) -> bool:
        """Whether people were asked what came of a call."""
        return any("unknown" in r.body for r in self._step_records() if r.kind == "waiting")

    def attempts(self) -> int:
        """The highest number that an attempt of any step had."""
        return max(r.attempt for r in self._step_records())

    def _step_records(self) -> list[Record]:
        keys = [StepKey.parse(path) for path in self.store.children(f"{self.run}/steps/")]
        return [r for key in keys for r in read_step(self.store, self.run, key, whole=True)]

    def exits(self) -> list[int]:
        """How the run's processes ended that were forked by the zygote and are gone."""
        return self.nursery.wait_gone(self.tag)

    def last_words(self, role: str) -> str:
        """The end of what the processes in ``role`` said."""
        path = self.folder / f"{role}.err"
        return self.said(role) + "\n" + (path.read_text()[-3000:] if path.exists() else "")

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Until ``condition`` holds of files that other processes write. Raises TimeoutError."""
        deadline = time.monotonic() + 60.0
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(self.last_words("driver"))
            time.sleep(0.01)

    def wait_stopped(self) -> int:
        """Until the strike has stopped its process; which one. The trace tells of the strike before the signal falls,
        and a SIGCONT in between would be lost.
        """
        self.wait_for(lambda: self.trace.fired() and _state(self.trace.fired_pid()) == "T")
        return self.trace.fired_pid()

    # -- what the outside does ------------------------------------------------------------------------------------

    def _recorded(self) -> None:
        """The outside wrote a request down and is about to answer."""
        self.arrived.set()
        with self._lock:
            if self.during is not None:
                self._kill_during(self.during)
        self.hold.wait()

    def _kill_during(self, point: Point) -> None:
        for line in self.trace.calls():
            if (line["role"], line["kind"], line["number"]) == (point.role, point.kind, point.number):
                self.during = None
                self.trace.add({"fired": str(point), "pid": line["pid"]})
                with suppress(ProcessLookupError):
                    os.kill(line["pid"], signal.SIGKILL)


def start_spec(world: World, attempt: int, *, step: str | None = None, events: tuple[int, ...] = ()) -> AttemptSpec:
    """What an attempt is told that needs nothing of other steps: what a driver would give."""
    pinned = PinnedRun.read(world.store, world.run)
    starts = [e for e in plan(pinned.snapshot(time.time(), {}, [])).effects if isinstance(e, Start)]
    start = next(s for s in starts if step in (None, s.key.name))
    planned = replace(start, attempt=attempt, events=events)
    return AttemptSpec(world.store_url, world.run, planned, leash=False)


def _state(pid: int) -> str:
    """The letter of the process's state, as proc(5) has it."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def _timeless(value: Any) -> Any:
    """``value`` without the instants that the outside puts into its answers."""
    match value:
        case dict():
            return {k: _timeless(v) for k, v in value.items() if k != "at"}
        case list():
            return [_timeless(v) for v in value]
        case _:
            return value


def _difference(found: Counter[str], wanted: Counter[str]) -> str:
    return f"effects too many: {dict(found - wanted)}, missing: {dict(wanted - found)}"
