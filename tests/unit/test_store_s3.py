"""What only the S3 store has to cope with: answers that are lost, servers that are busy, dead or unfit."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agentrun.store import s3
from agentrun.store.protocol import KeyExists, StoreUnavailable, StoreUnfit
from agentrun.store.s3 import Limits, S3Store
from agentrun.store.s3_direct import DirectS3Store
from tests.servers.flaky_proxy import Fault, FlakyProxy, flaky_proxy
from tests.servers.versitygw import S3Server

LIMITS = Limits(attempts=3, connect=5, read=10)
IMPATIENT = Limits(attempts=3, connect=5, read=0.3)

Objects = Callable[[], dict[str, bytes]]


@pytest.fixture(scope="module")
def bucket(s3_server: S3Server) -> str:
    return s3_server.new_bucket()


@pytest.fixture
def environment(s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The environment of a person who uses the server."""
    for name, value in s3_server.environment(tmp_path / "none").items():
        monkeypatch.setenv(name, value)
    return monkeypatch


@pytest.fixture
def proxy(s3_server: S3Server) -> Iterator[FlakyProxy]:
    with flaky_proxy(s3_server) as running:
        yield running


@pytest.fixture
def store(bucket: str, tmp_path: Path, proxy: FlakyProxy, environment: pytest.MonkeyPatch) -> S3Store:
    """An empty store behind the proxy."""
    environment.setenv("AWS_ENDPOINT_URL_S3", proxy.endpoint)
    return S3Store(f"s3://{bucket}/{tmp_path.name}", limits=LIMITS)


@pytest.fixture
def objects(s3_server: S3Server, bucket: str, tmp_path: Path) -> Objects:
    """What is really there, asked of the server itself: also the keys that ``list`` leaves out."""

    def look() -> dict[str, bytes]:
        client, start = s3_server.client, f"{tmp_path.name}/"
        keys = [found["Key"] for found in client.list_objects_v2(Bucket=bucket, Prefix=start).get("Contents", ())]
        return {key.removeprefix(start): client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}

    return look


def test_a_create_whose_answer_is_lost_meets_its_own_object(
    store: S3Store, proxy: FlakyProxy, objects: Objects
) -> None:
    proxy.fail(Fault.DROP_ANSWER)
    with pytest.raises(KeyExists):
        store.create("a", b"mine")
    assert objects() == {"a": b"mine"}
    assert proxy.requests == ["PUT", "PUT"]


def test_a_swap_whose_answer_is_lost_meets_its_own_object(store: S3Store, proxy: FlakyProxy, objects: Objects) -> None:
    version = store.swap("a", b"old", None)
    proxy.fail(Fault.DROP_ANSWER)
    with pytest.raises(KeyExists):
        store.swap("a", b"mine", version)
    assert objects() == {"a": b"mine"}


def test_a_create_whose_every_answer_is_lost_is_not_known(store: S3Store, proxy: FlakyProxy, objects: Objects) -> None:
    proxy.fail(Fault.DROP_ANSWER, times=LIMITS.attempts)
    with pytest.raises(StoreUnavailable, match="check the network and the endpoint, then resume the run"):
        store.create("a", b"mine")
    assert objects() == {"a": b"mine"}


@pytest.mark.parametrize("fault", [Fault.SLOW_DOWN, Fault.INTERNAL, Fault.THROTTLE, Fault.CONFLICT])
def test_what_passes_is_waited_out(store: S3Store, proxy: FlakyProxy, fault: Fault) -> None:
    proxy.fail(fault, times=1 if fault in {Fault.SLOW_DOWN, Fault.THROTTLE} else 2)
    store.create("a", b"1")
    assert store.get("a") == b"1"
    assert proxy.requests.count("PUT") == (2 if fault in {Fault.SLOW_DOWN, Fault.THROTTLE} else 3)


@pytest.mark.parametrize("fault", [Fault.INTERNAL, Fault.CONFLICT])
def test_what_does_not_pass_is_unavailable(store: S3Store, proxy: FlakyProxy, objects: Objects, fault: Fault) -> None:
    proxy.fail(fault, times=1000)
    with pytest.raises(StoreUnavailable, match=r"s3://.* was answered .*; (wait|try again)"):
        store.create("a", b"1")
    assert proxy.requests == ["PUT"] * LIMITS.attempts
    assert objects() == {}


@pytest.mark.parametrize(("fault", "says"), [(Fault.SLOW_DOWN, "503 SlowDown"), (Fault.THROTTLE, "429 TooManyReq")])
def test_a_busy_server_is_unavailable_in_the_end(store: S3Store, proxy: FlakyProxy, fault: Fault, says: str) -> None:
    proxy.fail(fault, times=1000)
    with pytest.raises(StoreUnavailable, match=f"{says}.*; wait, then resume the run"):
        S3Store(store.url, limits=Limits(attempts=1)).create("a", b"1")
    assert proxy.requests == ["PUT"]


@pytest.mark.parametrize("fault", [Fault.CUT_ANSWER, Fault.DROP_ANSWER, Fault.INTERNAL])
def test_a_get_that_breaks_is_tried_again(store: S3Store, proxy: FlakyProxy, fault: Fault) -> None:
    store.create("a", b"x" * 10_000)
    proxy.fail(fault, "GET", times=2)
    assert store.get("a") == b"x" * 10_000
    assert proxy.requests.count("GET") == 3


def test_a_get_that_always_breaks_is_unavailable(store: S3Store, proxy: FlakyProxy) -> None:
    store.create("a", b"x" * 10_000)
    proxy.fail(Fault.CUT_ANSWER, "GET", times=1000)
    with pytest.raises(StoreUnavailable, match="try again later"):
        store.get("a")
    assert proxy.requests.count("GET") == LIMITS.attempts


def test_a_list_that_breaks_is_tried_again(store: S3Store, proxy: FlakyProxy) -> None:
    store.create("ns/a", b"1")
    proxy.fail(Fault.DROP_ANSWER, "GET")
    assert store.list("") == ["ns/a"]
    proxy.fail(Fault.INTERNAL, "GET")
    assert store.children("") == ["ns"]


OPERATIONS: dict[str, Callable[[S3Store], object]] = {
    "create": lambda store: store.create("a", b"1"),
    "get": lambda store: store.get("a"),
    "list": lambda store: store.list(""),
    "children": lambda store: store.children(""),
    "read_version": lambda store: store.read_version("a"),
    "swap": lambda store: store.swap("a", b"1", None),
    "probe": lambda store: store.probe(),
}


def test_a_server_that_hangs_is_unavailable(store: S3Store, proxy: FlakyProxy) -> None:
    proxy.fail(Fault.HANG, times=1000)
    with pytest.raises(StoreUnavailable, match="Read timeout"):
        S3Store(store.url, limits=IMPATIENT).create("a", b"1")
    assert proxy.requests == ["PUT"] * IMPATIENT.attempts


def test_a_server_that_is_gone_is_unavailable(store: S3Store, proxy: FlakyProxy) -> None:
    store.create("ns/a", b"1")  # and a connection that was open when the server went
    proxy.close()
    for operation in OPERATIONS.values():
        with pytest.raises(StoreUnavailable, match=r"Could not connect.*check the network and the endpoint"):
            operation(store)


def test_a_store_that_ignores_conditions_is_refused(store: S3Store, proxy: FlakyProxy, objects: Objects) -> None:
    proxy.ignore_conditions = True
    with pytest.raises(StoreUnfit, match=r"ignores If-None-Match on PUT.*use a store with conditional writes"):
        store.probe()
    assert objects() == {}
    store.create("a", b"1")
    store.create("a", b"2")  # which is what the probe is for
    assert objects() == {"a": b"2"}


def test_a_probe_writes_twice_reads_back_and_cleans_up(store: S3Store, proxy: FlakyProxy, objects: Objects) -> None:
    store.probe()
    assert proxy.requests == ["PUT", "PUT", "PUT", "GET", "DELETE"]
    assert objects() == {}


def test_a_probe_whose_answer_is_lost_still_knows(store: S3Store, proxy: FlakyProxy) -> None:
    proxy.fail(Fault.DROP_ANSWER)
    store.probe()
    proxy.fail(Fault.DROP_ANSWER, "GET")
    store.probe()


def test_a_probe_does_not_need_to_delete(store: S3Store, proxy: FlakyProxy, objects: Objects) -> None:
    """Buckets that keep an audit trail forbid it; what is left behind is in nobody's list."""
    proxy.fail(Fault.INTERNAL, "DELETE", times=1000)
    store.probe()
    assert list(objects().values()) == [b"probe"]
    assert store.list("") == []
    assert store.children("") == []


def test_a_bucket_that_does_not_exist_is_unfit(environment: pytest.MonkeyPatch) -> None:
    store = S3Store("s3://no-such-bucket/p", limits=LIMITS)
    for name, operation in OPERATIONS.items():
        with pytest.raises(StoreUnfit, match=r"s3://no-such-bucket/p: .*create the bucket, or correct") as error:
            operation(store)
        assert "NoSuchBucket" in str(error.value), name


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("AWS_ACCESS_KEY_ID", "nobody", "credentials are wrong or have expired: set AWS_PROFILE"),
        ("AWS_SECRET_ACCESS_KEY", "hunter2", "credentials are wrong or have expired: set AWS_PROFILE"),
    ],
)
def test_wrong_credentials_are_unfit(
    bucket: str, s3_server: S3Server, environment: pytest.MonkeyPatch, name: str, value: str, says: str
) -> None:
    if s3_server.kind == "moto":
        pytest.skip("moto checks no credentials")
    environment.setenv(name, value)
    with pytest.raises(StoreUnfit, match=says) as error:
        S3Store(f"s3://{bucket}", limits=LIMITS).create("a", b"1")
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}, "Unable to locate credentials; set AWS_PROFILE"),
        ({"AWS_SECRET_ACCESS_KEY": None}, "Partial credentials .*set AWS_PROFILE"),
        ({"AWS_PROFILE": "nowhere"}, "nowhere.* could not be found; set AWS_PROFILE"),
        ({"AWS_ENDPOINT_URL_S3": "not a url"}, "Invalid endpoint: .*correct AWS_ENDPOINT_URL_S3"),
        (
            {
                "AWS_ACCESS_KEY_ID": None,
                "AWS_SECRET_ACCESS_KEY": None,
                "AWS_ROLE_ARN": "arn:aws:iam::1:role/r",
                "AWS_WEB_IDENTITY_TOKEN_FILE": "/nowhere/token",
            },
            "No such file .*/nowhere/token.*correct the AWS configuration",
        ),
    ],
)
def test_a_broken_configuration_is_unfit(
    bucket: str, environment: pytest.MonkeyPatch, settings: dict[str, str | None], says: str
) -> None:
    for name, value in settings.items():
        if value is None:
            environment.delenv(name)
        else:
            environment.setenv(name, value)
    for kind in (S3Store, DirectS3Store):
        for operation in (OPERATIONS["create"], OPERATIONS["probe"]):
            with pytest.raises(StoreUnfit, match=says):
                operation(kind(f"s3://{bucket}", limits=LIMITS))


def test_a_store_without_a_prefix_sees_the_whole_bucket(s3_server: S3Server, environment: pytest.MonkeyPatch) -> None:
    bucket = s3_server.new_bucket()
    whole, part = S3Store(f"s3://{bucket}/"), S3Store(f"s3://{bucket}/deep/down/")
    part.create("ns/a", b"1")
    s3_server.client.put_object(Bucket=bucket, Key="deep/down/folder/", Body=b"")
    s3_server.client.put_object(Bucket=bucket, Key="deep/down/not ours", Body=b"")
    s3_server.client.put_object(Bucket=bucket, Key="deep/downtown", Body=b"")
    assert whole.list("") == ["deep/down/ns/a", "deep/downtown"]
    assert part.list("") == ["ns/a"]
    assert part.children("ns/") == ["a"]
    assert whole.get("deep/down/ns/a") == b"1"


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    script = """
import sys
from agentrun.store.open import open_store
store = open_store("s3://bucket/prefix")
assert not {"boto3", "botocore"} & set(sys.modules), "after open_store"
store.preload()
assert "botocore" in sys.modules
assert "boto3" not in sys.modules, "boto3's resource layer"
"""
    operator = str(Path(s3.__file__).parents[2])
    subprocess.run([sys.executable, "-c", script], check=True, env={"PYTHONPATH": operator, "HOME": "/nowhere"})
