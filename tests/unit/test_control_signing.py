"""The operator signs the end of a run, whichever of its calls it dies at, and whatever becomes of its key."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agentrun.journal.audit import Verdict, verify
from agentrun.journal.signatures import SigningKey, key_name
from tests.harness.cluster_world import ClusterWorld, Operator
from tests.harness.operator_steps import begin, ends, quietly, workflow
from tests.harness.planner_world import step
from tests.harness.signed_run import never, pem
from tests.harness.virtual_time import VirtualLoop

WAIT = {"name": "w", "wait": {"duration": "1s"}}


@pytest.fixture
def key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


@pytest.fixture
def signs(key: Ed25519PrivateKey, tmp_path: Path) -> SigningKey:
    """The key as an operator reads it from a file."""
    (tmp_path / "key.pem").write_bytes(pem(key))
    return SigningKey(tmp_path / "key.pem", never)


def audited(world: ClusterWorld, *keys: Ed25519PrivateKey) -> Verdict:
    [run] = world.api.all("runs")
    return verify(world.store, world.path(run), {key_name(key.public_key()): key.public_key() for key in keys})


def test_the_operator_signs_the_end(world: ClusterWorld, key: Ed25519PrivateKey, signs: SigningKey) -> None:
    world.key = signs
    ends(world, begin(world, step("a"), step("b", "a")))
    verdict = audited(world, key)
    assert verdict.ended and verdict.findings == []
    assert verdict.signed_by == key_name(key.public_key())


def test_an_end_is_signed_once_whichever_call_the_operator_dies_at(key: Ed25519PrivateKey, signs: SigningKey) -> None:
    """Each call of the first operator is its last once; the one that follows finds the end signed, or signs it."""
    dead = 1
    while dies_at(dead, key, signs):
        dead += 1
    assert dead > 5


def dies_at(dead: int, key: Ed25519PrivateKey, signs: SigningKey) -> bool:
    """A run whose operator dies after so many calls, and is followed by another. Whether it came to die."""
    loop, made = VirtualLoop(), 0
    world = ClusterWorld(loop, key=signs)

    def dies(operator: Operator, side: str, what: str) -> None:
        nonlocal made
        made += side == "after" and operator is first
        if made == dead:
            first.kill()

    try:
        world.api.apply_run("r", {"workflow": workflow(WAIT)})
        first = world.operator()
        world.hook = dies
        world.settle()
        quietly(world, first, 8)
        quietly(world, world.operator(), 60)
        verdict = audited(world, key)
        assert verdict.ended and verdict.findings == [], dead
    finally:
        world.close()
        loop.close()
    return made >= dead


def test_a_rotated_key_signs_what_ends_from_then_on(
    world: ClusterWorld, key: Ed25519PrivateKey, signs: SigningKey, tmp_path: Path
) -> None:
    world.key = signs
    operator = begin(world, step("a"))
    second = Ed25519PrivateKey.generate()
    (tmp_path / "key.pem").write_bytes(pem(second))
    ends(world, operator)
    assert audited(world, key, second).signed_by == key_name(second.public_key())
    assert [f.message for f in audited(world, key).findings] == [
        f"the run's end is signed by the key {key_name(second.public_key())}, which is none of those given"
    ]
