"""A stand-in for nodes, in a process of its own: it marks every pod of a run Succeeded as soon as it appears.

    KUBECONFIG=… python -m tests.bench.operator.kubelet LOG

It answers as the runner of an agent step would, by a termination message that says how the attempt ended. Of each pod
it writes a line of JSON to LOG: the run, when the pod was seen, and when its end was accepted (both monotonic). It
prints a line when it watches.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import TextIO

from agentrun.api.canonical import timestamp
from agentrun.api.facts import AttemptEnd, StepFact, Usage
from agentrun.api.labels import ATTEMPT, RUN_LABEL
from agentrun.api.run import StepState
from tests.bench.operator.api import MERGE_PATCH, PODS, Json, call, follow, session

SIDE_BY_SIDE = 50


def ended(attempt: int, now: float) -> Json:
    """The status of a pod whose step succeeded after half a second."""
    usage = Usage(model_calls=1, input_tokens=1200, output_tokens=80)
    begun = now - 0.5
    fact = StepFact(
        attempt=attempt,
        seq=3,
        head="0" * 64,
        started=begun,
        at=now,
        end=AttemptEnd.CLOSED,
        intervals=((begun, now),),
        usage=usage,
        outcome=StepState.SUCCEEDED,
        output="x" * 100,
    )
    terminated = {
        "exitCode": 0,
        "reason": "Completed",
        "startedAt": timestamp(int(begun)),
        "finishedAt": timestamp(int(now)),
        "message": json.dumps(fact.to_json()),
    }
    step = {"name": "step", "ready": False, "restartCount": 0, "image": "x", "imageID": "x"}
    return {"phase": "Succeeded", "containerStatuses": [step | {"state": {"terminated": terminated}}]}


async def main(log: TextIO) -> None:
    """End pods until the process is killed."""
    room = asyncio.Semaphore(SIDE_BY_SIDE)
    async with session() as http, asyncio.TaskGroup() as tasks:

        async def end(pod: Json, seen: float) -> None:
            metadata = pod["metadata"]
            async with room:
                status = ended(int(metadata["annotations"][ATTEMPT]), time.time())
                try:
                    await call(http, "PATCH", f"{PODS}/{metadata['name']}/status", {"status": status}, **MERGE_PATCH)
                except RuntimeError as error:
                    print(error, file=sys.stderr, flush=True)  # it was deleted before its end: nobody waits for it
                    return
            line = {"run": metadata["labels"][RUN_LABEL], "seen": seen, "ended": time.monotonic()}
            log.write(json.dumps(line) + "\n")

        known: set[str] = set()
        async for kind, pod in follow(http, PODS, RUN_LABEL):
            seen = time.monotonic()
            if not kind:
                print("watching", flush=True)
            elif kind == "DELETED":
                known.discard(pod["metadata"]["uid"])
            elif pod["metadata"]["uid"] not in known and pod["status"]["phase"] == "Pending":
                known.add(pod["metadata"]["uid"])
                tasks.create_task(end(pod, seen))


if __name__ == "__main__":
    with Path(sys.argv[1]).open("a", buffering=1) as file:
        asyncio.run(main(file))
