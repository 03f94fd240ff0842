"""A machine that is killed, and what one is like: reboots, other hosts, the user's own files, few descriptors."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.local import agent, call, tool, workflow
from tests.e2e.shop import Shop, open_shop, until
from tests.e2e.toolhost import held, reply

OK = reply({"ok": True})
OTHER_BOOT = "11111111-2222-3333-4444-555555555555"
ELSEWHERE: dict[str, dict[str, Any]] = {
    "boot": {"place": f"{OTHER_BOOT} pid:[4026531836]"},
    "host": {"host": "another-machine"},
    "container": {"place": "pid:[1]"},
    "nowhere": {"place": ""},
}
"""What stands in the lease of a driver that was killed with its machine, as the machine of today sees it."""


def killed_elsewhere(shop: Shop, name: str, change: dict[str, Any]) -> None:
    """Let run ``name`` be driven by a process that is killed in the middle of a call, at a place that is not here."""
    count = len(shop.tools.asked("/slow"))
    with shop.running("run", "slow.yaml", "--name", name) as run:
        until("the call", lambda: len(shop.tools.asked("/slow")) > count)
        run.process.kill()
        run.end()
    [lease] = shop.store.glob(f"*/{name}-*/driver.json")
    holder = json.loads(lease.read_text())
    holder["process"] |= change
    lease.write_text(json.dumps(holder))


@pytest.fixture
def release(shop: Shop) -> threading.Event:
    event = threading.Event()
    shop.tools.on("/slow", held(event, OK))
    slow = tool("slow", f"{shop.tools.url}/slow", effect="Idempotent")
    steps = [call("slow", "slow"), {"name": "go", "dependsOn": ["slow"], "wait": {"signal": "go"}}]
    shop.file(workflow(tools=[slow], steps=steps), "slow.yaml")
    return event


def test_a_killed_machine_is_no_different_from_a_killed_process(shop: Shop, release: threading.Event) -> None:
    """Whatever the place was where the driver died, every verb says so, and ``resume`` goes on within 15 s."""
    for name, change in ELSEWHERE.items():
        killed_elsewhere(shop, name, change)
    release.set()
    listed = shop.agentrun("list")
    assert listed.out.count("not visible from here") == len(ELSEWHERE), listed
    for name in ELSEWHERE:
        for words in (("show", name), ("signal", name, "go")):
            said = shop.agentrun(*words)
            assert said.code == 0, said
            assert f"agentrun resume {name}" in said.out, said
    ends: dict[str, Any] = {}
    resumes = [
        threading.Thread(target=lambda name=name: ends.update({name: shop.agentrun("resume", name)}))
        for name in ELSEWHERE
    ]
    for thread in resumes:
        thread.start()
    for thread in resumes:
        thread.join()
    for name, said in ends.items():
        assert said.code == 0, (name, said)
        assert "waiting 15 s to see whether the driver on" in said.err


def test_cancel_after_a_reboot_names_the_verb_that_ends_the_run(shop: Shop, release: threading.Event) -> None:
    killed_elsewhere(shop, "c", ELSEWHERE["boot"])
    release.set()
    said = shop.agentrun("cancel", "c")
    assert said.code == 0 and "if it is gone: agentrun resume c" in said.out, said
    ended = shop.agentrun("resume", "c")
    assert ended.code == 1 and "c Cancelled" in ended.err, ended


PEOPLE = {"subject": "Go?", "approvers": {"groups": ["ops"]}}


def test_every_verb_has_its_word_about_a_run_whose_driver_is_not_seen(shop: Shop, release: threading.Event) -> None:
    """None of them hangs or needs another first; what they tell the run counts once a driver goes on with it."""
    shop.tools.on("/odd", OK)
    tools = [
        tool("slow", f"{shop.tools.url}/slow", effect="Idempotent"),
        tool("odd", f"{shop.tools.url}/odd", effect="Once", output="response.body.not.there"),
    ]
    steps = [
        call("slow", "slow"),
        call("odd", "odd"),
        {"name": "yes", "approval": PEOPLE},
        {"name": "no", "approval": PEOPLE, "continueOnError": True},
        {"name": "go", "wait": {"signal": "go"}},
    ]
    shop.file(workflow(tools=tools, steps=steps), "slow.yaml")
    with shop.running("run", "slow.yaml", "--name", "m") as run:
        until("the call", lambda: shop.tools.asked("/slow"))
        until("the open call", lambda: [r for r in shop.records("m", "odd") if r["kind"] == "waiting"])
        until("both questions", lambda: [e["kind"] for e in shop.events("m")].count("approvalRequested") == 2)
        run.process.kill()
        run.end()
    [lease] = shop.store.glob("*/m-*/driver.json")
    holder = json.loads(lease.read_text())
    holder["process"] |= ELSEWHERE["container"]
    lease.write_text(json.dumps(holder))

    with shop.running("logs", "m", "-f") as followed:
        for words, code, event in (
            ("logs m", 0, None),
            ("diff m m", 0, None),
            ("audit verify m", 0, None),
            ("audit export m", 0, None),
            ("approve m yes --as-group ops", 0, "decided"),
            ("reject m no --as-group ops --comment never", 0, "decided"),
            ("resolve m odd --happened 7", 0, "resolved"),
            ("signal m go", 0, "signalled"),
            ("suspend m", 0, "suspended"),
        ):
            before = len(shop.events("m"))
            said = shop.agentrun(*words.split())
            assert said.code == code and "Traceback" not in said.err, (words, said)
            added = [e["kind"] for e in shop.events("m")[before:]]
            assert added == ([event] if event else []), (words, added)
            if event:
                assert "agentrun resume m" in said.out, (words, said)
        again = shop.agentrun("approve", "m", "yes", "--as-group", "ops")
        assert again.code == 2 and "is already decided: Approved" in again.err, again
        until("why it waits", lambda: "no driver is running for m; waiting for agentrun resume m" in followed.said)
        assert len(shop.tools.asked("/odd")) == 1
        release.set()
        forked = shop.agentrun("fork", "m", "--from", "yes", "--name", "f")
        assert forked.code == 3, forked  # it asks anew
        ended = shop.agentrun("resume", "m")
        assert ended.code == 0, ended
        assert followed.end().code == 0
    states = {step["name"]: step["state"] for step in shop.agentrun("show", "m", "-o", "json").json["status"]["steps"]}
    assert states == dict.fromkeys(("slow", "odd", "yes", "go"), "Succeeded") | {"no": "Failed"}
    assert len({asked.headers["idempotency-key"] for asked in shop.tools.asked("/odd")}) == 2  # the fork's is its own
    assert len(shop.tools.asked("/odd")) == 2


# -- the user's own files ----------------------------------------------------------------------------------------------


OWN = ("openai", "json", "typing", "ssl", "httpx2", "pydantic", "yaml", "click", "asyncio", "boto3")
"""Names of modules that a user's folder may have for reasons of its own."""

BEFORE_US = ("sitecustomize", "usercustomize", "agentrun")
"""Those that Python imports before the first line of the command, where the user's PYTHONPATH leads to them."""


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("variables", [False, True])
def test_nothing_of_the_users_folder_is_imported(tmp_path: Path, detach: bool, variables: bool) -> None:
    """A file openai.py beside the workflow was run in the place of the library, with the user's key at hand."""
    with open_shop(tmp_path, {"rules": [{"text": "Hello."}]}) as shop:
        run_beside_own_files(shop, detach=detach, variables=variables)


def run_beside_own_files(shop: Shop, *, detach: bool, variables: bool) -> None:
    """Run an agent in a folder with modules of the user's; none of them is imported."""
    touched = shop.folder / "imported"
    for name in OWN if variables else OWN + BEFORE_US:
        shop.file(f"open({str(touched)!r}, 'w').close()\nraise SystemExit(9)\n", f"{name}.py")
    elsewhere = shop.folder / "elsewhere"
    shutil.copytree(shop.folder, elsewhere, ignore=lambda _, names: [n for n in names if not n.endswith(".py")])
    shop.tools.on("/x", OK)
    steps = [call("t", "fetch"), agent("a", "Say hello.", dependsOn=["t"])]
    models = [{"name": "main", "model": "m"}]
    shop.file(workflow(tools=[tool("fetch", f"{shop.tools.url}/x")], steps=steps, models=models), "mine.yaml")
    environment = {k: v for k, v in shop.environment.items() if k != "PYTHONPATH"}
    if variables:
        environment |= {
            "PYTHONPATH": f".:{shop.folder}:{elsewhere}",
            "PYTHONSTARTUP": "openai.py",
            "PYTHONWARNINGS": "error",
        }
    # The installed command, as users call it, in their folder.
    command = [str(Path(shop.command()[0]).with_name("agentrun")), "run", "mine.yaml", "--name", "mine"]
    done = subprocess.run(
        [*command, *(["--detach"] if detach else [])],
        cwd=shop.folder, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done
    until("the end", lambda: shop.events("mine") and shop.events("mine")[-1]["kind"] == "ended")
    assert shop.events("mine")[-1]["body"]["outcome"] == "Succeeded"
    assert not touched.exists()


PYTHON_VARIABLES: dict[str, str] = {
    "PYTHONHOME": "{folder}/nowhere",
    "PYTHONPATH": "{folder}",
    "PYTHONUSERBASE": "{folder}/base",
    "PYTHONSTARTUP": "{folder}/openai.py",
    "PYTHONINSPECT": "1",
    "PYTHONWARNINGS": "error",
    "PYTHONBREAKPOINT": "openai.set_trace",
    "PYTHONOPTIMIZE": "2",
    "PYTHONPLATLIBDIR": "nowhere",
    "PYTHONIOENCODING": "ascii:strict",
    "PYTHONVERBOSE": "1",
    "PYTHONPROFILEIMPORTTIME": "1",
    "PYTHONTRACEMALLOC": "25",
}
"""Each of them, if a process obeyed it, would import a file of the user's, keep it from starting, or write to a log."""


@pytest.mark.parametrize("detach", [False, True])
def test_no_variable_of_python_reaches_a_process_that_we_start(tmp_path: Path, detach: bool) -> None:
    """The command itself is started without them. The driver that it detaches and the steps' processes inherit them."""
    with open_shop(tmp_path, {"rules": [{"text": "Hällo."}]}) as shop:
        touched = shop.folder / "imported"
        own = f"open({str(touched)!r}, 'w').close()\nraise SystemExit(9)\n"
        for name in OWN + BEFORE_US:
            shop.file(own, f"{name}.py")
        site = shop.folder / "base" / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
        site.mkdir(parents=True)
        (site / "usercustomize.py").write_text(own)
        shop.tools.on("/x", OK)
        steps = [call("t", "fetch"), agent("a", "Say hällo.", dependsOn=["t"])]
        models = [{"name": "main", "model": "m"}]
        shop.file(workflow(tools=[tool("fetch", f"{shop.tools.url}/x")], steps=steps, models=models), "mine.yaml")
        variables = {name: value.format(folder=shop.folder) for name, value in PYTHON_VARIABLES.items()}
        done = subprocess.run(
            [sys.executable, "-E", "-P", "-s", "-m", "agentrun.cli", "run", "mine.yaml", "--name", "mine"]
            + (["--detach"] if detach else []),
            cwd=shop.folder, env=shop.environment | variables, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done
        until("the end", lambda: shop.events("mine") and shop.events("mine")[-1]["kind"] == "ended")
        assert shop.events("mine")[-1]["body"]["outcome"] == "Succeeded"
        assert not touched.exists()
        assert {record["attempt"] for step in ("t", "a") for record in shop.records("mine", step)} == {1}
        said = shop.agentrun("logs", "mine", "-o", "json")
        assert [line for line in said.out.splitlines() if json.loads(line)["event"] == "output"] == []


# -- few descriptors ---------------------------------------------------------------------------------------------------


def test_few_descriptors_mean_fewer_steps_at_once(shop: Shop) -> None:
    """``ulimit -n 48``: what cannot start waits for room; it used to count as lost, and the run was parked."""
    shop.tools.on("/x", OK)
    fan = call("f", "fetch", {}, forEach={"items": "${inputs.items}", "maxParallel": 20})
    shop.file(
        workflow(tools=[tool("fetch", f"{shop.tools.url}/x")], steps=[fan], inputs={"type": "object"}), "fan.yaml"
    )
    items = json.dumps(list(range(20)))

    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (48, 48))

    done = subprocess.run(
        shop.command("run", "fan.yaml", "--name", "fan", "-i", f"items={items}"),
        cwd=shop.folder, env=shop.environment, capture_output=True, text=True, timeout=100, check=False, preexec_fn=few,
    )  # fmt: skip
    assert done.returncode == 0, done
    assert "waiting for room: no process can be started: Too many open files" in done.stdout + done.stderr
    assert "lost" not in done.stdout + done.stderr
    attempts = {record["attempt"] for n in range(20) for record in shop.records("fan", f"f.{n}")}
    assert attempts == {1}


def test_a_detached_driver_leaves_no_folder_behind(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> None:
    shop.file(workflow(steps=[{"name": "a", "wait": {"duration": "0s"}}]), "wait.yaml")
    empty = tmp_path_factory.mktemp("tmp")
    assert shop.agentrun("run", "wait.yaml", "--name", "d", "--detach", env={"TMPDIR": str(empty)}).code == 0
    until("the end", lambda: shop.events("d") and shop.events("d")[-1]["kind"] == "ended")
    assert list(empty.iterdir()) == []
