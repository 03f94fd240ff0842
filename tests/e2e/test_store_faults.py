"""Stores that are full, read-only, out of reach or unfit: the exit code 4, a clear message, and nothing lost."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator

import pytest

from tests.e2e.local import call, tool, workflow
from tests.e2e.relay import Relay
from tests.e2e.shop import Said, Shop, until
from tests.e2e.toolhost import Handler, held, reply
from tests.servers.flaky_proxy import flaky_proxy
from tests.servers.versitygw import S3Server

OK = reply({"ok": True})


@pytest.fixture
def file(shop: Shop) -> str:
    """A workflow of two calls and a note."""
    shop.tools.on("/slow", OK)
    shop.tools.on("/fine", OK)
    tools = [tool("slow", f"{shop.tools.url}/slow", effect="Idempotent"), tool("fine", f"{shop.tools.url}/fine")]
    steps = [call("slow", "slow"), call("after", "fine", dependsOn=["slow"])]
    return shop.file(workflow(tools=tools, steps=steps))


# -- folders --


@pytest.fixture(scope="module")
def own_mounts() -> tuple[str, ...]:
    """A command that runs another one where it may mount."""
    command = ("unshare", "--user", "--map-root-user", "--mount")
    if shutil.which("unshare") is not None:
        done = subprocess.run([*command, "mount", "-t", "tmpfs", "none", "/mnt"], check=False, capture_output=True)
        if done.returncode == 0:
            return command
    if os.environ.get("CI"):
        pytest.fail("CI has to be able to make mounts of its own: unshare --user --mount")
    pytest.skip("this user may not make mounts of their own (unshare --user --mount)")


def mounted(shop: Shop, own_mounts: tuple[str, ...], script: str, *arguments: str) -> Said:
    """``script`` in a shell with mounts of its own, in which ``agentrun`` is the command."""
    shop.store.mkdir(exist_ok=True)
    head = f'agentrun() {{ {sys.executable} -m agentrun.cli "$@"; }}\n'
    done = subprocess.run(
        [*own_mounts, "sh", "-c", head + textwrap.dedent(script), "sh", *arguments],
        cwd=shop.folder,
        env=shop.environment,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    return Said(done.returncode, done.stdout, done.stderr)


def test_a_full_disk_refuses_a_run_before_it_begins(shop: Shop, file: str, own_mounts: tuple[str, ...]) -> None:
    script = f"""
    mount -t tmpfs -o size=16k none store
    head -c 16384 /dev/zero > store/ballast
    agentrun run {file} --name r; echo "code $?"
    rm store/ballast
    ls store
    mount -t tmpfs -o size=1m none store
    agentrun run {file} --name r; echo "code $?"
    """
    said = mounted(shop, own_mounts, script)
    assert said.out.count("code 4") == 1, said
    assert said.out.splitlines()[-1] == "code 0", said
    assert "No space left on device; free some space there" in said.err
    assert len(said.err.splitlines()) == 1, said


def test_a_disk_that_is_full_in_the_middle_is_waited_for(shop: Shop, file: str, own_mounts: tuple[str, ...]) -> None:
    script = f"""
    mount -t tmpfs -o size=1m none store
    agentrun run {file} --name r > out 2>&1 &
    until [ -e called ]; do sleep 0.02; done
    dd if=/dev/zero of=store/ballast bs=4k 2> /dev/null
    touch full
    until grep -q "store out of reach, trying again" out || ! kill -0 $!; do sleep 0.02; done
    rm store/ballast
    wait $!; echo "code $?"
    agentrun audit verify r > verified 2>&1; echo "code $?"
    cat out verified
    """

    def once_full(handler: Handler) -> None:
        (shop.folder / "called").touch()
        until("a full disk", (shop.folder / "full").exists)
        OK(handler)

    shop.tools.on("/slow", once_full)
    said = mounted(shop, own_mounts, script)
    assert said.out.splitlines()[:2] == ["code 0", "code 0"], said
    assert "No space left on device; free some space there" in said.out
    assert len({one.headers["idempotency-key"] for one in shop.tools.asked("/slow")}) == 1
    assert len(shop.tools.asked("/fine")) == 1


def test_a_read_only_store_can_be_looked_at_but_not_driven(shop: Shop, file: str, own_mounts: tuple[str, ...]) -> None:
    script = f"""
    mount -t tmpfs -o size=1m none store
    agentrun run {file} --name r > /dev/null; echo "code $?"
    mount -o remount,ro store
    for words in "show r" "list" "logs r" "audit verify r"; do agentrun $words > /dev/null; echo "code $?"; done
    agentrun run {file} --name s; echo "code $?"
    """
    said = mounted(shop, own_mounts, script)
    assert said.out.splitlines() == [f"code {code}" for code in (0, 0, 0, 0, 0, 4)], said
    assert "Read-only file system; make the folder writable" in said.err
    assert len(said.err.splitlines()) == 1, said


def test_a_store_that_is_a_file_is_refused(shop: Shop, file: str) -> None:
    shop.store.write_text("mine")
    said = shop.agentrun("run", file)
    assert said.code == 4, said
    assert len(said.err.splitlines()) == 1
    assert "choose another folder with --store" in said.err
    assert shop.store.read_text() == "mine"


# -- S3 --


@pytest.fixture
def relay(shop: Shop, s3_server: S3Server) -> Iterator[Relay]:
    """The stage's store on an S3 server that can be taken away."""
    with Relay(s3_server.endpoint) as made:
        shop.environment |= s3_server.environment(shop.folder / "nowhere")
        shop.environment |= {"AWS_ENDPOINT_URL_S3": made.endpoint, "AGENTRUN_STORE": f"s3://{s3_server.new_bucket()}/x"}
        yield made


def test_a_store_that_is_not_there_is_said_at_once(shop: Shop, file: str, s3_server: S3Server) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{free.getsockname()[1]}"
    environment = s3_server.environment(shop.folder / "nowhere") | {"AWS_ENDPOINT_URL_S3": nowhere}
    said = shop.agentrun("run", file, "--store", "s3://some-bucket/x", env=environment)
    assert said.code == 4, said
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert "s3://some-bucket/x" in said.err
    assert "check the network and the endpoint" in said.err
    assert shop.tools.asked() == []


def test_a_store_that_comes_back_in_the_middle_is_waited_for(shop: Shop, file: str, relay: Relay) -> None:
    release = threading.Event()
    shop.tools.on("/slow", held(release, OK))
    with shop.running("run", file, "--name", "r") as run:
        until("the call", lambda: shop.tools.asked("/slow") or run.process.poll() is not None)
        relay.stop()
        release.set()
        until("the word that it waits", lambda: "store out of reach, trying again" in run.said)
        relay.start()
        said = run.end()
    assert said.code == 0, said
    assert len(shop.tools.asked("/fine")) == 1
    assert len({one.headers["idempotency-key"] for one in shop.tools.asked("/slow")}) == 1
    assert shop.agentrun("audit", "verify", "r").code == 0


def test_a_store_that_stays_away_ends_the_driver_and_nothing_is_lost(shop: Shop, file: str, relay: Relay) -> None:
    release = threading.Event()
    shop.tools.on("/slow", held(release, OK))
    with shop.running("run", file, "--name", "r") as run:
        until("the call", lambda: shop.tools.asked("/slow") or run.process.poll() is not None)
        relay.stop()
        release.set()
        said = run.end(110)
    assert said.code == 4, said
    assert "Traceback" not in said.err, said
    assert "check the network and the endpoint, then resume the run" in said.err.splitlines()[-1]
    relay.start()
    resumed = shop.agentrun("resume", "r")
    assert resumed.code == 0, resumed
    assert len(shop.tools.asked("/fine")) == 1
    assert len({one.headers["idempotency-key"] for one in shop.tools.asked("/slow")}) == 1


def test_a_store_that_ignores_conditions_is_refused_and_left_alone(shop: Shop, file: str, s3_server: S3Server) -> None:
    bucket = s3_server.new_bucket()
    with flaky_proxy(s3_server) as proxy:
        proxy.ignore_conditions = True
        environment = s3_server.environment(shop.folder / "nowhere") | {"AWS_ENDPOINT_URL_S3": proxy.endpoint}
        said = shop.agentrun("run", file, "--store", f"s3://{bucket}/x", env=environment)
    assert said.code == 4, said
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert "the server ignores If-None-Match on PUT" in said.err
    assert "Contents" not in s3_server.client.list_objects_v2(Bucket=bucket)
    assert shop.tools.asked() == []


def test_a_bucket_that_is_not_there_and_a_wrong_key_are_named(shop: Shop, file: str, s3_server: S3Server) -> None:
    environment = s3_server.environment(shop.folder / "nowhere")
    said = shop.agentrun("run", file, "--store", "s3://no-such-bucket/x", env=environment)
    assert said.code == 4, said
    assert "create the bucket" in said.err
    if s3_server.kind == "versitygw":
        wrong = environment | {"AWS_SECRET_ACCESS_KEY": "not-the-key-4711"}
        said = shop.agentrun("list", "--store", f"s3://{s3_server.new_bucket()}", env=wrong)
        assert said.code == 4, said
        assert "the credentials are wrong or have expired" in said.err
        assert "not-the-key-4711" not in said.err
