"""The refund example by the command line, as a person would type it, on a folder and on an S3 server."""

from __future__ import annotations

import getpass
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agentrun.journal.signatures import key_name
from tests.e2e.shop import ROOT, TOKEN, Shop, until
from tests.harness.signed_run import pem, public_pem
from tests.servers.versitygw import S3Server

STATES = {"triage": "Succeeded", "sign-off": "Succeeded", "refund": "Succeeded", "note": "Succeeded"}


@pytest.fixture(params=["folder", "s3"])
def placed(request: pytest.FixtureRequest, shop: Shop) -> Shop:
    """The stage with its store in a folder, and on an S3 server."""
    if request.param == "s3":
        server: S3Server = request.getfixturevalue("s3_server")
        shop.environment |= server.environment(shop.folder / "nowhere")
        shop.environment["AGENTRUN_STORE"] = f"s3://{server.new_bucket()}/runs"
    return shop


def states(found: dict[str, Any]) -> dict[str, str]:
    return {step["name"]: step["state"] for step in found["status"]["steps"]}


def typed(out: str, verb: str) -> list[str]:
    """The words of the command for ``verb`` that ``out`` tells the person to type, without ``agentrun``."""
    [line] = {line.strip() for line in out.splitlines() if re.search(rf"agentrun {verb} ", line)}
    return shlex.split(line[line.index("agentrun ") :])[1:]


def test_the_refund_from_file_to_payment(placed: Shop) -> None:
    shop = placed
    asked = shop.agentrun("run", shop.refund(), "--name", "refund-1", "--secrets", "secrets")
    assert asked.code == 3, asked
    assert asked.out.splitlines()[0] == "refund-1"
    assert "Refund 138.9 for order 4711?" in asked.out
    assert shop.backend.payments == []

    approve = typed(asked.out, "approve")
    assert approve == ["approve", "refund-1", "sign-off", "--as-group", "finance"]
    for words in (approve[:3], [*approve[:4], "sales"]):
        refused = shop.agentrun(*words)
        assert refused.code == 2, refused
        assert "allowed to decide: group finance. Nothing was written" in refused.err
    approved = shop.agentrun(*approve, "--comment", "go ahead")
    assert approved.code == 0, approved
    again = shop.agentrun(*approve)
    assert again.code == 2, again
    assert "Approved by" in again.err

    resume = typed(asked.out, "resume")
    done = shop.agentrun(*resume, "-o", "json")
    assert done.code == 0, done
    assert done.json["kind"] == "AgentRun"
    assert states(done.json) == STATES
    assert done.json["status"]["phase"] == "Succeeded"
    [payment] = shop.backend.payments
    assert done.json["status"]["output"]["refunded"]["id"] == payment["id"]
    assert (payment["orderId"], payment["amount"]) == ("4711", 138.9)
    assert len(shop.model.requests) == 3
    assert TOKEN not in done.out + done.err

    same = shop.agentrun(*resume)
    assert same.code == 0, same
    assert len(shop.backend.payments) == 1

    shown = shop.agentrun("show", "refund-1")
    for text in ("Succeeded", "turn 3", "pay_refund", "go ahead", f"Approved by {getpass.getuser()}", "unverified"):
        assert text in shown.out, shown
    listed = shop.agentrun("list", "-o", "json").json
    assert listed["kind"] == "List"
    assert [item["metadata"]["name"] for item in listed["items"]] == ["refund-1"]
    assert listed["items"][0]["status"] == shop.agentrun("show", "refund-1", "-o", "json").json["status"]
    verified = shop.agentrun("audit", "verify", "refund-1")
    assert verified.code == 0, verified


def test_the_end_of_a_run_is_signed_where_there_is_a_key(placed: Shop) -> None:
    shop = placed
    key = Ed25519PrivateKey.generate()
    (shop.folder / "key.pem").write_bytes(pem(key))
    (shop.folder / "key.pub").write_bytes(public_pem(key))
    shop.environment["AGENTRUN_SIGNING_KEY"] = str(shop.folder / "key.pem")
    assert shop.agentrun("run", shop.refund(), "--name", "refund-3", "--secrets", "secrets").code == 3
    early = shop.agentrun("audit", "verify", "refund-3", "--public-key", "key.pub")
    assert early.code == 1 and "the run has no end" in early.out, early
    assert shop.agentrun("approve", "refund-3", "sign-off", "--as-group", "finance").code == 0
    assert shop.agentrun("resume", "refund-3", "--secrets", "secrets").code == 0
    verified = shop.agentrun("audit", "verify", "refund-3", "--public-key", "key.pub")
    assert verified.code == 0 and f"signed by {key_name(key.public_key())}" in verified.out, verified
    (shop.folder / "key.pem").write_text("no key")
    refused = shop.agentrun("run", shop.refund(), "--name", "refund-4", "--secrets", "secrets")
    assert refused.code == 2 and "key.pem holds no private key in PEM" in refused.err, refused
    assert "refund-4" not in shop.agentrun("list").out


def test_a_rejection_ends_the_run_and_pays_nothing(placed: Shop) -> None:
    shop = placed
    asked = shop.agentrun("run", shop.refund(), "--name", "refund-2", "--secrets", "secrets", "-o", "json")
    assert asked.code == 3, asked
    assert asked.json["status"]["phase"] == "Waiting"
    assert typed(asked.err, "reject") == ["reject", "refund-2", "sign-off", "--as-group", "finance"]
    rejected = shop.agentrun("reject", "refund-2", "--as-group", "finance", "--comment", "too much", "-o", "json")
    assert rejected.code == 0, rejected
    assert rejected.json["kind"] == "AgentRun"
    done = shop.agentrun("resume", "refund-2", "--secrets", "secrets")
    assert done.code == 1, done
    assert "too much" in done.out + done.err
    found = shop.agentrun("show", "refund-2", "-o", "json").json
    assert states(found) == {**STATES, "sign-off": "Failed", "refund": "Cancelled"}
    assert found["status"]["phase"] == "Failed"
    assert shop.backend.payments == []
    assert shop.agentrun("resume", "refund-2").code == 1


def test_a_run_in_the_background_is_waited_for(shop: Shop) -> None:
    started = shop.agentrun(
        "run", shop.refund(), "-i", "orderId=1042", "--name", "small", "--secrets", "secrets", "--detach"
    )
    assert started.code == 0, started
    assert started.out.splitlines()[0] == "small"
    until("the payment", lambda: shop.backend.payments)
    followed = shop.agentrun("logs", "small", "-f")
    assert followed.code == 0, followed
    found = until(
        "the end",
        lambda: (one := shop.agentrun("show", "small", "-o", "json").json)["status"]["phase"] == "Succeeded" and one,
    )
    assert states(found) == {**STATES, "sign-off": "Skipped"}
    assert [payment["amount"] for payment in shop.backend.payments] == [12.5]


def test_forks_differences_and_audits(shop: Shop) -> None:
    first = shop.agentrun("run", shop.refund(), "-i", "orderId=1042", "--name", "one", "--secrets", "secrets")
    assert first.code == 0, first
    taken = shop.agentrun("run", "refund.yaml", "--name", "one", "--secrets", "secrets")
    assert taken.code == 2, taken
    assert "a run named one exists" in taken.err
    forked = shop.agentrun("fork", "one", "--from", "refund", "--name", "two", "--secrets", "secrets")
    assert forked.code == 0, forked
    assert "may call it again" in forked.err
    assert len(shop.model.requests) == 3
    assert len(shop.backend.payments) == 2
    different = shop.agentrun("diff", "one", "two")
    assert different.code == 1, different
    assert "refund" in different.out
    assert shop.agentrun("diff", "one", "one").code == 0
    for run in ("one", "two"):
        verified = shop.agentrun("audit", "verify", run)
        assert verified.code == 0, verified
    exported = shop.agentrun("audit", "export", "one")
    assert exported.code == 0, exported
    lines = [json.loads(line) for line in exported.out.splitlines()]
    assert "Approved" not in exported.out  # nobody had to
    assert any("pay_refund" in json.dumps(line) for line in lines)
    assert TOKEN not in exported.out + shop.agentrun("logs", "one").out


@pytest.mark.timeout(180)
def test_the_demo_plays_to_its_end(tmp_path: Path) -> None:
    installed = Path(sys.executable).with_name("agentrun")
    assert installed.exists(), "the demo types `agentrun`: install the project beside this Python, as make test does"
    played = subprocess.run(
        [sys.executable, "-m", "examples.refund.demo"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
        text=True,
    )
    assert played.returncode == 0, played.stdout + played.stderr
    assert "The payment ledger has 1 payment." in played.stdout
    assert (tmp_path / ".agentrun/demo/store").is_dir()
