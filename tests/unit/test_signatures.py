"""The signature of a run's end: who has not the key can change nothing of the run, hashes or not."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from agentrun.api.canonical import canonical, digest_of, sha256
from agentrun.api.keys import StepKey
from agentrun.journal.audit import Verdict, verify
from agentrun.journal.paths import RunPath
from agentrun.journal.signatures import key_name
from tests.harness.cli_store import Scene
from tests.harness.signed_run import Held, Objects, Signed

Records = list[dict[str, Any]]


def said(verdict: Verdict) -> str:
    return "\n".join(f"{finding.key}: {finding.message}" for finding in verdict.findings)


def test_the_end_names_the_key_that_signed_it(signed: Signed) -> None:
    verdict = signed.audit(signed.objects())
    assert verdict.findings == [] and verdict.ended
    assert verdict.signed_by == key_name(signed.key.public_key())
    assert signed.audit(signed.objects(), signed=False).findings == []


def test_an_end_whose_body_is_a_blob_is_signed_too(scene: Scene) -> None:
    signed = Signed(scene, output="y" * 100_000)
    [event] = [json.loads(data) for data in signed.objects().values() if b'"kind":"ended"' in data]
    assert "$blob" in event["body"]
    assert signed.audit(signed.objects()).findings == []


# -- a journal that is written anew ----------------------------------------------------------------------------------


@dataclass
class Journal:
    """A run's objects, taken apart."""

    manifest: dict[str, Any]
    steps: dict[str, Records]
    events: Records
    blobs: Objects


def anew(objects: Objects, run: RunPath, change: Callable[[Journal], object]) -> Objects:
    """The objects after ``change``, with every hash, number and head as agentrun would write them."""
    journal = Journal(json.loads(objects[run.manifest]), {}, [], {})
    for key, data in sorted(objects.items()):
        place = key.removeprefix(f"{run}/").split("/")
        if place[0] == "events":
            journal.events.append(json.loads(data))
        elif place[0] == "steps":
            journal.steps.setdefault(place[1], []).append(json.loads(data))
        elif place[0] == "blobs":
            journal.blobs[key] = data
    change(journal)
    del journal.manifest["hash"]
    journal.manifest["workflowDigest"] = digest_of(journal.manifest["workflow"])
    found = {run.manifest: canonical({**journal.manifest, "hash": digest_of(journal.manifest)}), **journal.blobs}
    heads = {}
    for step, records in journal.steps.items():
        chain(found, run.step(StepKey.parse(step)), records)
        heads[step] = [records[-1]["seq"], records[-1]["hash"]]
    for event in journal.events:
        if event["kind"] == "ended":
            event["body"]["heads"] = heads
    chain(found, run.events, journal.events)
    return found


def chain(into: Objects, prefix: str, records: Records) -> None:
    before = ""
    for number, record in enumerate(records, 1):
        record.pop("hash", None)
        record |= {"seq": number, "prev": before}
        record["hash"] = before = sha256(canonical(record))
        into[f"{prefix}{number:08}.json"] = canonical(record)


def another_blob(journal: Journal) -> None:
    [key] = journal.blobs
    data = journal.blobs.pop(key).replace(b"xxxx", b"yyyy", 1)
    name = sha256(data)
    journal.blobs[f"{key.rpartition('/')[0]}/{name.removeprefix('sha256:')}"] = data
    [record] = [r for r in journal.steps["triage"] if "$blob" in r["body"]]
    record["body"]["$blob"] = name


def swapped(journal: Journal) -> None:
    journal.events[0], journal.events[1] = journal.events[1], journal.events[0]


def another_run(journal: Journal) -> None:
    journal.manifest["uid"] = "0" * 32


ATTACKS: dict[str, Callable[[Journal], Any]] = {
    "who said it": lambda j: j.events[0]["body"].update(by="eve"),
    "when it was": lambda j: j.events[0].update(at="2020-01-01T00:00:00.000000Z"),
    "an event removed": lambda j: j.events.pop(0),
    "events swapped": swapped,
    "an event put in": lambda j: j.events.insert(0, json.loads(json.dumps(j.events[0]))),
    "an event of a later version": lambda j: j.events.insert(0, {**j.events[0], "kind": "later", "body": {}}),
    "what a step answered": lambda j: j.steps["triage"][-1]["body"].update(output="no"),
    "a record of a step removed": lambda j: j.steps["triage"].pop(1),
    "the tail of a step cut off": lambda j: j.steps["triage"].pop(),
    "a step removed": lambda j: j.steps.pop("refund"),
    "a step put in": lambda j: j.steps.update(
        {"sign-off": [{**r, "step": "sign-off"} for r in json.loads(json.dumps(j.steps["refund"]))]}
    ),
    "a blob": another_blob,
    "the inputs": lambda j: j.manifest["inputs"].update(order="4712"),
    "who made it": lambda j: j.manifest.update(requestedBy="eve"),
    "the workflow": lambda j: j.manifest["workflow"]["steps"][0]["agent"].update(prompt="Pay it."),
    "the outcome": lambda j: j.events[-1]["body"].update(outcome="Failed"),
    "the output": lambda j: j.events[-1]["body"].update(output="other"),
    "a field of a later version in the end": lambda j: j.events[-1]["body"].update(more=1),
    "the signature removed": lambda j: j.events[-1]["body"].pop("signature"),
    "another key's name": lambda j: j.events[-1]["body"]["signature"].update(key="sha256:0"),
    "another manifest in the signature": lambda j: j.events[-1]["body"]["signature"].update(manifest="sha256:0"),
    "another value": lambda j: j.events[-1]["body"]["signature"].update(value=base64.b64encode(b"x" * 64).decode()),
    "no value": lambda j: j.events[-1]["body"]["signature"].update(value="?"),
}


@pytest.mark.parametrize("change", ATTACKS.values(), ids=ATTACKS)
def test_a_journal_that_is_written_anew_is_found(signed: Signed, change: Callable[[Journal], Any]) -> None:
    objects = anew(signed.objects(), signed.run, change)
    assert said(signed.audit(objects, signed=False)) == "", "its hashes fit"
    assert "the run's end" in said(signed.audit(objects))


def test_nothing_that_is_written_as_it_was_is_found(signed: Signed) -> None:
    assert anew(signed.objects(), signed.run, lambda _: None) == signed.objects()


def test_a_signature_that_is_not_this_ends_is_found(signed: Signed, scene: Scene) -> None:
    """Of another run, by the same key; and by another key."""
    other = Signed(scene, "r2", key=signed.key)
    theirs = json.loads(other.objects()[f"{other.run.events}00000003.json"])["body"]["signature"]
    objects = anew(signed.objects(), signed.run, lambda j: j.events[-1]["body"].update(signature=theirs))
    assert "was signed for another run.json" in said(signed.audit(objects))
    stranger = Signed(scene, "r3")
    assert "none of those given" in said(verify(Held(stranger.objects()), stranger.run, signed.keys))


def test_a_run_in_anothers_place_is_found(signed: Signed) -> None:
    objects = anew(signed.objects(), signed.run, another_run)
    assert "the object was moved" in said(signed.audit(objects, signed=False))


def resealed(data: bytes, **more: Any) -> bytes:
    """A record with fields that no agentrun writes, and a hash that covers them."""
    value = {**json.loads(data), **more}
    del value["hash"]
    return canonical({**value, "hash": sha256(canonical(value))})


def test_what_is_signed_is_found_in_one_form_only(signed: Signed) -> None:
    """Bytes that mean the same, and bytes beside what is signed."""
    objects = signed.objects()
    end = f"{signed.run.events}00000003.json"
    at = json.loads(objects[end])["at"]
    forms = {
        "more fields": resealed(objects[end], note="x"),
        "the same instant": resealed(objects[end], at=at.replace("Z", "+00:00")),
        "an attempt": resealed(objects[end], attempt=7),
        "white space": json.dumps(json.loads(objects[end]), indent=1).encode(),
    }
    for what, data in forms.items():
        assert data != objects[end], what
        assert end in said(signed.audit(objects | {end: data})), what
    manifest = json.dumps(json.loads(objects[signed.run.manifest]), indent=1).encode()
    assert f"{signed.run.manifest}: it holds more" in said(signed.audit(objects | {signed.run.manifest: manifest}))


def test_an_end_that_is_cut_off_is_found(signed: Signed) -> None:
    objects = anew(signed.objects(), signed.run, lambda j: j.events.pop())
    assert not signed.audit(objects, signed=False).findings
    assert "the run has no end, so nothing of it is signed" in said(signed.audit(objects))


def test_a_second_end_is_found(signed: Signed) -> None:
    def again(journal: Journal) -> None:
        end = json.loads(json.dumps(journal.events[-1]))
        end["body"]["outcome"] = "Failed"
        journal.events.append(end)

    objects = anew(signed.objects(), signed.run, again)
    assert "a run ends once" in said(signed.audit(objects, signed=False))


def test_events_behind_the_end_are_counted(signed: Signed) -> None:
    signed.scene.event(signed.run, "ttlChanged", ttlSecondsAfterFinished=5, by="ana", verified=True)
    verdict = signed.audit(signed.objects())
    assert (verdict.findings, verdict.after_end) == ([], 1)
