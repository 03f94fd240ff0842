"""A real S3 server for tests: versitygw, built with Go on first use; moto's server where there is no Go."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MODULE = "github.com/versity/versitygw/cmd/versitygw"
VERSION = "v1.8.0"
ACCESS_KEY = "tests"
SECRET_KEY = "tests-secret-key"
REGION = "us-east-1"
_START_SECONDS = 20.0


@dataclass(frozen=True)
class S3Server:
    """A server on the loopback interface. ``kind`` is ``versitygw`` or ``moto``; moto checks no credentials."""

    kind: str
    endpoint: str
    access_key: str = ACCESS_KEY
    secret_key: str = SECRET_KEY

    def environment(self, nowhere: Path) -> dict[str, str]:
        """What makes boto3's default chain use this server, and nothing that the person running tests has set up.

        ``nowhere``: a path without a file, in place of their AWS configuration.
        """
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_CONFIG_FILE": str(nowhere),
            "AWS_SHARED_CREDENTIALS_FILE": str(nowhere),
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    @functools.cached_property
    def client(self) -> Any:
        """A boto3 client with the server's own credentials. Safe for threads."""
        import boto3

        return boto3.session.Session().client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=REGION,
        )

    def new_bucket(self) -> str:
        """Make an empty bucket; its name."""
        name = f"bucket-{uuid.uuid4().hex}"
        self.client.create_bucket(Bucket=name)
        return name


def has_go() -> bool:
    """Whether versitygw can be built here. Raises RuntimeError in CI where it can't: there nothing may be skipped."""
    if shutil.which("go") is not None:
        return True
    if os.environ.get("CI"):
        raise RuntimeError("CI is set and there is no `go` on PATH: install Go, versitygw is built from source")
    return False


@functools.cache
def build() -> Path:
    """The versitygw binary, from the cache or built now (about a minute). Safe beside other test processes."""
    go = subprocess.run(["go", "env", "GOVERSION"], check=True, capture_output=True, text=True).stdout.strip()
    digest = hashlib.sha256(f"{MODULE}@{VERSION} {go}".encode()).hexdigest()[:24]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "agentrun"
    binary = cache / digest / "versitygw"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{digest}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second process waits for the first one's build and then finds it
        if not binary.exists():
            with tempfile.TemporaryDirectory(dir=cache) as scratch:
                environment = os.environ | {"GOBIN": scratch, "GOFLAGS": "-mod=mod", "CGO_ENABLED": "0"}
                built = subprocess.run(
                    ["go", "install", f"{MODULE}@{VERSION}"],
                    env=environment,
                    cwd=scratch,
                    check=False,
                    capture_output=True,
                    text=True,
                )
                if built.returncode != 0:
                    raise RuntimeError(f"go install {MODULE}@{VERSION} failed:\n{built.stderr[-2000:]}")
                binary.parent.mkdir(exist_ok=True)
                (Path(scratch) / "versitygw").rename(binary)
    return binary


@contextmanager
def running_versitygw(folder: Path) -> Iterator[S3Server]:
    """Run versitygw over an empty directory in ``folder`` until the block ends."""
    data = folder / "data"
    data.mkdir()
    log = folder / "versitygw.log"
    process, port = _start(data, log)
    try:
        yield S3Server("versitygw", f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _start(data: Path, log: Path) -> tuple[subprocess.Popen[bytes], int]:
    """A process that listens, and where. Between choosing a port and binding it another may take it: choose again."""
    binary = build()
    for _ in range(5):
        with socket.socket() as chosen:
            chosen.bind(("127.0.0.1", 0))
            port: int = chosen.getsockname()[1]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [binary, "--port", f"127.0.0.1:{port}", "--keep-alive", "posix", data],
                env={"PATH": os.defpath, "ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        if _listens(process, port):
            return process, port
    raise RuntimeError(f"versitygw does not start; it said:\n{log.read_text(errors='replace')[-2000:]}")


def _listens(process: subprocess.Popen[bytes], port: int) -> bool:
    """Wait until ``process`` accepts connections; False if it ends first."""
    pause = 0.02
    for _ in range(int(_START_SECONDS / pause)):
        try:
            process.wait(timeout=pause)  # the pause between two tries ends early when the process does
        except subprocess.TimeoutExpired:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
            except OSError:
                continue
            return True
        return False
    process.kill()
    process.wait()
    return False


@contextmanager
def running_moto() -> Iterator[S3Server]:
    """Run moto's server in this process: the protocol without permissions, 409s or durability."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield S3Server("moto", f"http://{host}:{port}")
    finally:
        server.stop()


@contextmanager
def running(folder: Path) -> Iterator[S3Server]:
    """Run the best server that this machine has. ``folder`` is empty and the caller's to delete."""
    if has_go():
        with running_versitygw(folder) as server:
            yield server
    else:
        with running_moto() as server:
            yield server
