"""Records journals with a released agentrun: ``python -m tests.replay.record VENV FOLDER [SCENE…]``.

``VENV`` is a virtual environment in which the release is installed, and ``FOLDER`` gets a file for each scene of
``scenes``, or for those that are named. The release drives the runs; this checkout gives the model and the tools alone.
Before a journal is written, the processes in it get the name of one machine that does not exist, and the hash chain is
made anew: ``agentrun audit verify`` of the release then finds it whole. What the journal amounts to (``facts``,
``status``, and in ``moments`` what a driver would do after each record) is the release's word, too.

A file that exists is not written over: what a release left behind does not change.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from examples.scripted_model import ScriptedModel

from agentrun.journal.paths import entries
from agentrun.journal.records import parse
from tests.e2e.toolhost import ToolHost
from tests.replay.scenes import PORT, RULES, SCENES, Scene

PROCESS = {"host": "laptop", "pid": 4711, "place": "boot-1 pid-1", "started": 1}
"""Who wrote every record."""

JUDGE = """
import json, sys
from agentrun.journal.fold import fold
from agentrun.journal.log import EventLog, read_step
from agentrun.journal.open_store import open_store
from agentrun.journal.pinned import PinnedRun
from agentrun.journal.runs import find_run, read_facts
from agentrun.plan.planner import plan
store = open_store(sys.argv[1])
run = find_run(store, "default", sys.argv[2])
log = EventLog(store, run, lambda: 0.0)
log.refresh()
events, facts, pinned = log.records, read_facts(store, run), PinnedRun.read(store, run)
steps = {key: read_step(store, run, key, whole=True) for key in facts}
moments = []
for now in sorted(r.at for records in (*steps.values(), events) for r in records):
    then = {key: fold(r for r in records if r.at <= now).fact() for key, records in steps.items()}
    begun = {key: fact for key, fact in then.items() if fact.seq}
    found = plan(pinned.snapshot(now, begun, [r for r in events if r.at <= now]))
    words = []
    for effect in found.effects:
        appends = hasattr(effect, "kind")
        about = (effect.kind, effect.body.get("step", "")) if appends else (effect.key.path, effect.attempt)
        words.append(f"{type(effect).__name__} {about[0]} {about[1]}")
    moments.append([found.status["phase"], *words])
print(json.dumps({
    "run": str(run),
    "facts": {key.path: fact.to_json() for key, fact in facts.items()},
    "status": plan(pinned.snapshot(events[-1].at + 1, facts, events)).status,
    "moments": moments,
}))
"""
"""What the release says of the run of a name; the modules are those of 0.1.0."""


def rename(store: Path) -> dict[str, str]:
    """The objects of ``store``, by key, as ``PROCESS`` would have written them; without leases and logs."""
    objects = {str(file.relative_to(store)): file.read_bytes() for file in sorted(store.rglob("*")) if file.is_file()}
    kept = {key: data.decode() for key, data in objects.items() if "/names/" in key or key.endswith("/run.json")}
    hashes: dict[str, str] = {}

    def renamed(value: Any) -> Any:
        match value:
            case dict():
                return dict(PROCESS) if value.keys() == PROCESS.keys() else {k: renamed(v) for k, v in value.items()}
            case list():
                return [renamed(entry) for entry in value]
            case str():
                return hashes.get(value, value)
            case _:
                return value

    # A record names only hashes of records that were there before it.
    records = [(parse(objects[key], key), key) for key in entries(objects)]
    for record, key in sorted(records, key=lambda entry: (entry[0].at, entry[1])):
        sealed, data = replace(record, body=renamed(record.body), prev=renamed(record.prev)).sealed()
        hashes[record.hash] = sealed.hash
        kept[key] = data.decode()
    gone = {old for old, new in hashes.items() if old != new}
    assert not [key for key, text in kept.items() if any(old in text for old in gone)]
    return kept


def judge(venv: Path, store: Path, name: str) -> dict[str, Any]:
    """What the release says of a run of ``store``."""
    command = [str(venv / "bin/python"), "-c", JUDGE, str(store), name]
    said: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return said


def record(scene: Scene, names: list[str], folder: Path) -> None:
    """Play the scenes of these names and write their journals."""
    for name in names:
        print(name, flush=True)
        SCENES[name](scene)
    objects = rename(scene.folder / "store")
    for key, text in objects.items():
        place = scene.folder / "renamed" / key
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    for name in names:
        scene.agentrun("audit", "verify", name, store="renamed")
        said = judge(scene.venv, scene.folder / "renamed", name)
        own = (f"{said['run']}/", f"default/names/{name}")
        said["objects"] = {key: text for key, text in objects.items() if key == own[1] or key.startswith(own[0])}
        with (folder / f"{name}.json").open("x") as file:
            file.write(json.dumps(said, indent=1, sort_keys=True) + "\n")


def main() -> None:
    """Record with the release in ``VENV`` into ``FOLDER``."""
    venv, folder = (Path(word).absolute() for word in sys.argv[1:3])
    place = Path(tempfile.mkdtemp(prefix="agentrun-replay-"))
    print(f"the stores stay in {place}: store (as written) and renamed")
    with ScriptedModel({"rules": RULES}) as model, ToolHost(port=PORT) as tools:
        record(Scene(venv, place, model.url, tools), sys.argv[3:] or list(SCENES), folder)


if __name__ == "__main__":
    main()
