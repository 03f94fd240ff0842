"""What has to hold in the end: told by the ledger outside, the API server, the journals and the logs."""

from __future__ import annotations

import json
import re
import statistics
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentrun.api.canonical import moment
from tests.cluster.operator import Operator, processes, says
from tests.cluster.places import FailedError
from tests.servers.ledger import Ledger
from tests.soak.faults import Chaos
from tests.soak.load import ENDS, EXPECTED, Tenant, Timed

LATE = 2.0
"""Seconds that another tenant's run may take longer than alone, where no fault is felt."""

GROWTH = 1.25
"""By which the memory of a replica may grow from the second quarter of the time to the last."""

TRACE = re.compile(r"Traceback|Task exception was never retrieved|Connection pool is full")


@dataclass(frozen=True)
class Finding:
    """One thing that has to hold."""

    what: str
    holds: bool
    measured: str


def judge(operator: Operator, tenant: Tenant, ledger: Ledger, model: list[dict[str, Any]]) -> Iterator[Finding]:
    """The contract: every run ends, no effect is done twice or lost, no committed model request is repeated."""
    runs = {name: operator.run(tenant.namespace, name) for name in tenant.submitted}
    open_ = {name: sorted(says(run)) for name, run in runs.items() if not ENDS & says(run)}
    yield Finding("every run has ended", not open_, f"{len(runs)} runs; open: {open_ or 'none'}")
    wrong = {n: r["status"]["phase"] for n, r in runs.items() if not {EXPECTED[n.partition("-")[0]]} & says(r)}
    yield Finding("as it had to", not wrong, f"otherwise: {wrong or 'none'}")

    once = Counter(line.path for line in ledger.lines if line.path.startswith("/once/"))
    twice = {path: n for path, n in once.items() if n > 1}
    yield Finding("no `Once` effect twice", not twice, f"{len(once)} effects; twice: {twice or 'none'}")
    lost = [path for name, run in runs.items() if ENDS & says(run) for path in wanted(name) if path not in once]
    yield Finding("no effect of a run that ended is missing", not lost, f"missing: {lost or 'none'}")
    undone = {line.path for line in ledger.lines if line.path.startswith("/idempotent/undo-")}
    left = [n for n in runs if n.startswith("saga-") and f"/idempotent/undo-{n}" not in undone]
    yield Finding("what was to be undone was undone", not left, f"left: {left or 'none'}")

    turns: dict[str, float] = {}
    broken = []
    for name in runs:
        verified = operator.agentrun(tenant.namespace, "audit verify", name, store=True, check=False)
        if verified.returncode:
            broken.append(f"{name}: {verified.stderr.strip()[-200:]}")
        if name.startswith("pay-"):
            turns |= dict(_turns(operator, tenant.namespace, name))
    yield Finding("every journal verifies", not broken, f"broken: {broken or 'none'}")
    again = [line["id"] for line in model if line.get("id") in turns and moment(line["at"]) > turns[line["id"]] + 0.05]
    said = f"{len(model)} requests, {len(turns)} committed turns; repeated: {again or 'none'}"
    asked = any(name.startswith("pay-") and "Succeeded" in says(run) for name, run in runs.items())
    yield Finding("no committed model request is repeated", not again and bool(turns) is asked, said)


def wanted(name: str) -> list[str]:
    """The `Once` effects of a run that came to its end."""
    if name.startswith("fan-"):
        return [f"/once/item-{name}-{n}" for n in (1, 2, 3, 4)]
    return [f"/once/pay-{name}"]


def _turns(operator: Operator, namespace: str, name: str) -> Iterator[tuple[str, float]]:
    exported = operator.agentrun(namespace, "audit export", name, store=True, check=False).stdout
    for line in exported.splitlines():
        record = json.loads(line).get("content")
        if isinstance(record, dict) and record.get("kind") == "turn" and "responseId" in record["body"]:
            at = record["at"]
            yield record["body"]["responseId"], at if isinstance(at, float) else moment(at)


def punctual(timed: Timed, alone: list[float], chaos: Chaos) -> Finding:
    """Whether another tenant's small runs were on time, where no fault was felt."""
    usual = statistics.median(alone)
    calm = [took for took in timed.took if chaos.quiet(took.begun, took.ended)]
    late = sorted((took for took in calm if took.seconds > usual + LATE), key=lambda took: -took.seconds)
    seconds = [took.seconds for took in calm] or [0.0]
    named = "; ".join(f"{took.legs}, {chaos.before(took.begun)}" for took in late)
    said = (
        f"alone {usual:.1f} s; {len(calm)} of {len(timed.took)} in peace: median {statistics.median(seconds):.1f} s, "
        f"worst {max(seconds):.1f} s; late: {named or 'none'}"
    )
    return Finding("others are within 2 s", bool(calm) and not late, said)


def quiet_logs(texts: list[str]) -> Finding:
    """Whether the operators' logs hold a traceback, or a warning of a library's."""
    found = sorted({line.strip()[:300] for text in texts for line in text.splitlines() if TRACE.search(line)})
    return Finding("no traceback in a log", not found, f"found: {found[:5] or 'none'}")


def memory(operator: Operator) -> int:
    """The largest resident memory of a replica now, in bytes; 0 where none can be told."""
    sizes = [0]
    try:
        replicas = operator.replicas()
    except FailedError:
        return 0  # the API server starts again
    for pod in replicas:
        try:
            uid = operator.cluster.get("pod", pod, "-n", "agentrun")["metadata"]["uid"]
            for process in processes(uid, "agentrun.adapters.operator"):
                status = Path(f"/proc/{process}/status").read_text()
                sizes += [int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS")]
        except (FailedError, OSError):
            continue  # it was killed a moment ago
    return max(sizes)


def flat(samples: list[int]) -> Finding:
    """Whether memory does not grow: the most of the last quarter against the most of the second."""
    found = [size for size in samples if size]
    quarter = max(1, len(found) // 4)
    before, after = max(found[quarter : 2 * quarter], default=0), max(found[-quarter:], default=0)
    second, last, most = (f"{size / 2**20:.0f} MiB" for size in (before, after, max(found, default=0)))
    said = f"second quarter {second}, last {last}, most {most}"
    return Finding("memory is flat", after <= GROWTH * before, said)
