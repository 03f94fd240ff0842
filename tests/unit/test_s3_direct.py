"""The direct S3 store: all that the S3 store's own suite asks, and that it sends what botocore would send."""

# ruff: noqa: F811  (the suite's fixtures are imported, and the tests' arguments have their names)

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from agentrun.store import s3_direct
from agentrun.store.protocol import StoreUnavailable, StoreUnfit
from agentrun.store.s3 import Limits, S3Store
from agentrun.store.s3_direct import DirectS3Store
from tests.servers.flaky_proxy import Fault, FlakyProxy
from tests.unit import test_store_s3
from tests.unit.test_store_s3 import bucket, environment, objects, proxy, store  # noqa: F401 (fixtures)

# The suite of the S3 store, over this one.
globals().update({name: test for name, test in vars(test_store_s3).items() if name.startswith("test_")})


@pytest.fixture(autouse=True)
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the suite makes an S3Store, it makes a direct one, which loses no time between two tries."""
    monkeypatch.setattr(test_store_s3, "S3Store", DirectS3Store)
    monkeypatch.setattr(s3_direct, "PAUSE_MAX", 0.001)


def test_requests_to_a_real_server_are_sent_directly(store: DirectS3Store, proxy: FlakyProxy) -> None:
    store.preload()
    assert store._client.direct
    assert proxy.requests == []
    store.create("a", b"1")
    proxy.fail(Fault.CUT_ANSWER, "GET", times=2)
    assert store.list("") == ["a"]
    assert proxy.requests == ["PUT", "GET", "GET", "GET"]


# -- what is sent, without a server ---------------------------------------------------------------------------------

Answer = tuple[int, dict[str, str], bytes]
KEY = "ns/run-1/A-Z_0.9@x=+,:~!()"
LISTED = b"<ListBucketResult><EncodingType>url</EncodingType><IsTruncated>false</IsTruncated></ListBucketResult>"


class Wire:
    """Takes the place of botocore's HTTP session: what is sent, and the answers."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.sent: list[Any] = []
        self.answer: Callable[[Any], Answer] = lambda request: (200, {"ETag": '"e"'}, LISTED)
        patch.setattr("botocore.httpsession.URLLib3Session.send", lambda _, request: self.send(request))

    def send(self, request: Any) -> Any:
        from botocore.awsrequest import AWSResponse

        self.sent.append(request)
        status, headers, body = self.answer(request)
        raw = io.BytesIO(body)
        raw.stream = lambda: [body]  # type: ignore[attr-defined]  # of urllib3
        return AWSResponse(request.url, status, headers, raw)

    @property
    def hosts(self) -> list[str]:
        return [urlsplit(request.url).netloc for request in self.sent]

    @property
    def keys(self) -> list[str]:
        """The access key of each request."""
        return [re.findall("Credential=([^/]+)/", text(request.headers["Authorization"]))[0] for request in self.sent]


def text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode()


def shape(request: Any) -> dict[str, Any]:
    """What of a request must be botocore's: all but the instant, the signature, the names and counters of what it uses,
    and the question whether it may send the body, whose answer takes a round trip.
    """
    headers = {name.lower(): text(value) for name, value in request.headers.items()}
    scope = re.findall(r"^AWS4-HMAC-SHA256 Credential=\w+/\d+/([^,]+),", headers["authorization"])
    signed = set(re.findall(r"SignedHeaders=([^,]+)", headers["authorization"])[0].split(";"))
    left_out = {"authorization", "x-amz-date", "amz-sdk-invocation-id", "amz-sdk-request", "expect", "user-agent"}
    parts = urlsplit(request.url)
    return {
        "method": request.method,
        "url": parts._replace(query="").geturl(),
        "query": sorted(parts.query.split("&")),
        "body": b"" if request.body is None else getattr(request.body, "getvalue", lambda: request.body)(),
        "headers": {name: value for name, value in headers.items() if name not in left_out},
        "scope": scope,
        "signed": signed - left_out,
    }


@pytest.fixture
def aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The environment of a person who uses Amazon S3."""
    for name in (
        "AWS_REGION",
        "AWS_ENDPOINT_URL_S3",
        "AWS_ENDPOINT_URL",
        "AWS_PROFILE",
        "AWS_SESSION_TOKEN",
        "AWS_CA_BUNDLE",
    ):
        monkeypatch.delenv(name, raising=False)
    settings = {
        "AWS_ACCESS_KEY_ID": "AKIATEST",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


@pytest.fixture
def wire(aws: pytest.MonkeyPatch) -> Wire:
    return Wire(aws)


OPERATIONS: list[Callable[[S3Store], object]] = [
    lambda store: store.create(KEY, b"body"),
    lambda store: store.swap(KEY, b"", '"etag"'),
    lambda store: store.get(KEY),
    lambda store: store.list("ns/run=+", "ns/run=+~1"),
    lambda store: store.children("ns/"),
]


@pytest.mark.parametrize(
    ("bucket", "settings", "host"),
    [
        ("bucket", {}, "bucket.s3.amazonaws.com"),
        ("bucket", {"AWS_DEFAULT_REGION": "eu-central-1"}, "bucket.s3.eu-central-1.amazonaws.com"),
        ("bucket", {"AWS_DEFAULT_REGION": "cn-north-1"}, "bucket.s3.cn-north-1.amazonaws.com.cn"),
        ("bucket", {"AWS_SESSION_TOKEN": "token"}, "bucket.s3.amazonaws.com"),
        ("with.dots", {"AWS_DEFAULT_REGION": "eu-west-1"}, "s3.eu-west-1.amazonaws.com"),
        ("Old_Bucket", {"AWS_DEFAULT_REGION": "us-west-2"}, "s3.us-west-2.amazonaws.com"),
        ("bucket", {"AWS_USE_DUALSTACK_ENDPOINT": "true"}, "bucket.s3.dualstack.us-east-1.amazonaws.com"),
        ("bucket", {"AWS_USE_FIPS_ENDPOINT": "true"}, "bucket.s3-fips.us-east-1.amazonaws.com"),
        ("bucket", {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9000"}, "127.0.0.1:9000"),
        ("bucket", {"AWS_ENDPOINT_URL_S3": "https://s3.example/deep/"}, "s3.example"),
        ("bucket", {"config": "s3 =\n    addressing_style = path"}, "s3.amazonaws.com"),
        ("bucket", {"config": "s3 =\n    use_accelerate_endpoint = true"}, "bucket.s3-accelerate.amazonaws.com"),
        (
            "bucket",
            {"AWS_ENDPOINT_URL_S3": "https://s3.example", "config": "s3 =\n    addressing_style = virtual"},
            "bucket.s3.example",
        ),
    ],
)
def test_what_is_sent_is_what_botocore_sends(
    aws: pytest.MonkeyPatch,
    wire: Wire,
    tmp_path: Path,
    bucket: str,
    settings: dict[str, str],
    host: str,
) -> None:
    for name, value in settings.items():
        if name == "config":
            (tmp_path / "config").write_text(f"[default]\n{value}\n")
        else:
            aws.setenv(name, value)
    direct = DirectS3Store(f"s3://{bucket}/prefix")
    direct.preload()
    assert direct._client.direct
    for operation in OPERATIONS:
        operation(direct)
    ours, wire.sent = wire.sent, []
    botocores = S3Store(direct.url)
    for operation in OPERATIONS:
        operation(botocores)
    assert {urlsplit(request.url).netloc for request in ours} == {host}
    for one, other in zip(ours, wire.sent, strict=True):
        assert shape(one) == shape(other)


def test_a_bucket_that_is_signed_in_another_way_is_left_to_botocore(wire: Wire) -> None:
    """A directory bucket (S3 Express) has sessions and credentials of its own."""
    express = DirectS3Store("s3://runs--use1-az4--x-s3", limits=Limits(attempts=1))
    express.preload()
    assert not express._client.direct
    session = b"""<CreateSessionResult><Credentials><SessionToken>t</SessionToken><SecretAccessKey>s</SecretAccessKey>
        <AccessKeyId>SESSION</AccessKeyId><Expiration>2100-01-01T00:00:00Z</Expiration></Credentials>
        </CreateSessionResult>"""
    wire.answer = lambda request: (200, {"ETag": '"e"'}, session if "?session" in request.url else LISTED)
    express.create("a", b"1")
    assert express.list("") == []
    assert wire.keys == ["AKIATEST", "SESSION", "SESSION"]


def test_headers_that_are_not_known_here_are_left_to_botocore(wire: Wire) -> None:
    store = DirectS3Store("s3://bucket")  # as a plug-in or a newer botocore might
    store.preload()
    store._client._client.meta.events.register(
        "before-call.s3.PutObject", lambda params, **_: params["headers"].update({"x-amz-new": "1"})
    )
    store.create("a", b"1")
    assert not store._client.direct
    assert text(wire.sent[0].headers["x-amz-new"]) == "1"


def test_a_bucket_in_another_region_is_found_once(wire: Wire) -> None:
    moved = b"<Error><Code>PermanentRedirect</Code><Message>elsewhere</Message></Error>"

    def answer(request: Any) -> Answer:
        if "eu-west-1" in request.url:
            return 200, {"ETag": '"there"'}, b""
        return 301, {"x-amz-bucket-region": "eu-west-1"}, moved

    wire.answer = answer
    store = DirectS3Store("s3://bucket")
    assert store.swap("a", b"1", None) == '"there"'
    assert wire.hosts[0] == "bucket.s3.amazonaws.com"
    wire.sent.clear()
    assert store.swap("b", b"1", None) == '"there"'
    assert wire.hosts == ["bucket.s3.eu-west-1.amazonaws.com"]
    assert store._client.direct


EXPIRED: Answer = (400, {}, b"<Error><Code>ExpiredToken</Code><Message>The token has expired.</Message></Error>")


def test_credentials_that_have_expired_are_looked_for_anew(wire: Wire, aws: pytest.MonkeyPatch) -> None:
    store = DirectS3Store("s3://bucket")
    store.create("a", b"1")
    wire.answer = lambda request: EXPIRED if "AKIATEST" in text(request.headers["Authorization"]) else (200, {}, b"")
    aws.setenv("AWS_ACCESS_KEY_ID", "AKIANEW")
    store.create("b", b"1")
    store.create("c", b"1")
    assert wire.keys == ["AKIATEST", "AKIATEST", "AKIANEW", "AKIANEW"]


def test_credentials_that_stay_expired_are_not_looked_for_at_each_request(wire: Wire) -> None:
    wire.answer = lambda request: EXPIRED
    store = DirectS3Store("s3://bucket")
    for requests in (2, 3, 4):
        with pytest.raises(StoreUnfit, match="credentials are wrong or have expired"):
            store.get("a")
        assert len(wire.sent) == requests


def test_credentials_are_refreshed_before_they_expire(wire: Wire, aws: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = tmp_path / "given.json"

    def give(key: str) -> None:
        soon = (datetime.now(UTC) + timedelta(minutes=5)).isoformat()  # botocore refreshes 10 minutes before
        given.write_text(
            json.dumps(
                {"Version": 1, "AccessKeyId": key, "SecretAccessKey": "s", "SessionToken": "t", "Expiration": soon}
            )
        )

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        aws.delenv(name)
    (tmp_path / "config").write_text(f"[default]\ncredential_process = cat {given}\n")
    store = DirectS3Store("s3://bucket")
    give("FIRST")
    store.create("a", b"1")
    give("SECOND")
    store.create("b", b"1")
    assert wire.keys == ["FIRST", "SECOND"]


def test_a_store_that_is_down_is_not_asked_again_and_again(wire: Wire) -> None:
    """Threads share a budget of retries: once it is spent, each call is one request."""
    wire.answer = lambda request: (503, {}, b"<Error><Code>SlowDown</Code><Message>please</Message></Error>")
    store = DirectS3Store("s3://bucket", limits=Limits(attempts=3))
    for _ in range(120):
        with pytest.raises(StoreUnavailable, match="503 SlowDown"):
            store.create("a", b"1")
    assert len(wire.sent) == 120 + 500 // 5


def test_a_clock_that_is_wrong_is_said_at_once(wire: Wire) -> None:
    wire.answer = lambda request: (403, {}, b"<Error><Code>RequestTimeTooSkewed</Code><Message>m</Message></Error>")
    with pytest.raises(StoreUnfit, match="set this machine's clock"):
        DirectS3Store("s3://bucket").create("a", b"1")
    assert len(wire.sent) == 1


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff\xfe", b"<Error><Code>"])
def test_errors_that_are_no_xml_are_errors(wire: Wire, body: bytes) -> None:
    wire.answer = lambda request: (403, {}, body)
    store = DirectS3Store("s3://bucket")
    for operation in OPERATIONS:
        with pytest.raises(StoreUnfit, match=r"was answered 403"):
            operation(store)
