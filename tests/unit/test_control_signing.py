"""The operator signs the end of a run, whichever of its calls it dies at, and whatever becomes of its key."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agentrun.journal.audit import Verdict, verify
from agentrun.journal.signatures import SigningKey, key_name
from tests.harness.cluster_world import ClusterWorld, Operator
from tests.harness.operator_steps import begin, ends, quietly
from tests.harness.planner_world import step
from tests.harness.signed_run import never, pem

WAIT = {"name": "w", "wait": {"duration": "1s"}}


@pytest.fixture
def key(world: ClusterWorld, tmp_path: Path) -> Ed25519PrivateKey:
    """The key of every operator in the world, from a file."""
    made = Ed25519PrivateKey.generate()
    (tmp_path / "key.pem").write_bytes(pem(made))
    world.key = SigningKey(tmp_path / "key.pem", never)
    return made


def audited(world: ClusterWorld, *keys: Ed25519PrivateKey) -> Verdict:
    [run] = world.api.all("runs")
    return verify(world.store, world.path(run), {key_name(key.public_key()): key.public_key() for key in keys})


def test_the_operator_signs_the_end(world: ClusterWorld, key: Ed25519PrivateKey) -> None:
    ends(world, begin(world, step("a"), step("b", "a")))
    verdict = audited(world, key)
    assert verdict.ended and verdict.findings == []
    assert verdict.signed_by == key_name(key.public_key())


def test_an_end_is_signed_once_whichever_call_the_operator_dies_at(world: ClusterWorld, key: Ed25519PrivateKey) -> None:
    """Each call of the first operator is its last once; the one that follows finds the end signed, or signs it."""
    number, dead = 0, None

    def dies(operator: Operator, side: str, what: str) -> None:
        nonlocal number
        if operator is first and side == "after":
            number += 1
            if number == dead:
                operator.kill()

    for dead in range(1, 200):
        fresh = ClusterWorld(world.loop)
        try:
            fresh.key, number = world.key, 0
            fresh.api.apply_run("r", {"workflow": {"tools": [], "steps": [WAIT]}})
            first = fresh.operator()
            fresh.hook = dies
            fresh.settle()
            quietly(fresh, first, 8)
            finished = number < dead
            second = fresh.operator()
            quietly(fresh, second, 60)
            verdict = audited(fresh, key)
            assert verdict.ended and verdict.findings == [], dead
        finally:
            fresh.close()
        if finished:
            break
    assert dead > 5


def test_a_rotated_key_signs_what_ends_from_then_on(
    world: ClusterWorld, key: Ed25519PrivateKey, tmp_path: Path
) -> None:
    operator = begin(world, step("a"))
    second = Ed25519PrivateKey.generate()
    (tmp_path / "key.pem").write_bytes(pem(second))
    ends(world, operator)
    assert audited(world, key, second).signed_by == key_name(second.public_key())
    assert [f.message for f in audited(world, key).findings] == [
        f"the run's end is signed by the key {key_name(second.public_key())}, which is none of those given"
    ]
