"""`python -m tests.cluster up|down|status`: a cluster for a person. `build`: builds what every cluster needs."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import textwrap
import time
from contextlib import ExitStack
from pathlib import Path

from tests.cluster import cluster as clusters
from tests.cluster.access import PEOPLE
from tests.cluster.cluster import MODEL_KEY, TOKEN, Cluster
from tests.cluster.places import FailedError, MissingError, cache, locked, say
from tests.cluster.sandbox import destroy, find
from tests.servers.versitygw import REGION


def main() -> int:
    """Run the verb. Returns 1 if this machine cannot, and 3 from `status` if no cluster runs."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description="A Kubernetes on this machine.")
    parser.add_argument("verb", choices=("up", "down", "status", "build"))
    verb = parser.parse_args().verb
    try:
        with locked("cluster"):
            return {"up": up, "down": down, "status": status, "build": build}[verb]()
    except (MissingError, FailedError) as error:
        say(str(error))
        return 1


def folder() -> Path:
    """The folder with the files of the person's cluster."""
    return cache() / "cluster"


def up() -> int:
    """Start a cluster that outlives this process, and print how to use it. A complete one that runs already stays."""
    hint = folder() / "hint"
    if find(folder()) is not None and hint.exists():
        say("it runs already; `make cluster-down` ends it")
        print(hint.read_text())
        return 0
    _remove()  # a cluster that crashed, or whose start failed
    folder().mkdir(mode=0o700)
    clusters.prepare()
    begun = time.monotonic()
    with ExitStack() as closing:
        closing.callback(shutil.rmtree, folder(), ignore_errors=True)
        running = clusters.start(folder(), bound=False, closing=closing)
        hint.write_text(_hint(running))
        closing.pop_all()  # the cluster stays from here on
    say(f"up in {time.monotonic() - begun:.0f} s")
    print(hint.read_text())
    return 0


def down() -> int:
    """End the cluster."""
    say("ended" if _remove() else "there was none")
    return 0


def status() -> int:
    """Print whether the cluster runs, and how to use it."""
    hint = folder() / "hint"
    if find(folder()) is None or not hint.exists():
        say("none runs; `make cluster` starts one")
        return 3
    print(hint.read_text())
    return 0


def build() -> int:
    """Build and install what is missing. If this machine cannot, print that tests will be skipped; in CI, fail."""
    try:
        clusters.prepare()
    except MissingError as error:
        if os.environ.get("CI"):
            raise MissingError(f"CI is set, where nothing may be skipped: {error}") from error
        say(f"{error}. The tests that need it are skipped")
    return 0


def _remove() -> bool:
    """End the cluster, complete or crashed, and remove its files. Returns whether there was one."""
    ran = destroy(folder())
    was = folder().exists()
    if was:
        shutil.rmtree(folder())
    return was or ran


def _hint(running: Cluster) -> str:
    """The text about using the cluster, with commands for copying into a shell."""
    assert running.plane is not None
    for user in PEOPLE:
        running.kubeconfig(user)
    repository, _, tag = running.image.rpartition(":")
    store = running.store
    values = _written(
        "values.yaml",
        f"""\
        image: {{repository: {repository}, tag: "{tag}", pullPolicy: Never}}
        store:
          url: s3://{running.bucket}
          region: {REGION}
          endpoint: {store.endpoint}
          credentialsSecret: agentrun-store
        """,
    )
    credentials = _written(
        "store.yaml",
        f"""\
        apiVersion: v1
        kind: Secret
        metadata: {{name: agentrun-store}}
        stringData: {{AWS_ACCESS_KEY_ID: {store.access_key}, AWS_SECRET_ACCESS_KEY: {store.secret_key}}}
        """,
    )
    variables = _written(
        "store.env",
        f"""\
        export AWS_ACCESS_KEY_ID={store.access_key} AWS_SECRET_ACCESS_KEY={store.secret_key}
        export AWS_ENDPOINT_URL_S3={store.endpoint} AWS_REGION={REGION}
        """,
    )
    return textwrap.dedent(
        f"""\

        A cluster runs on this machine, and only this machine reaches it. In a shell:

          export KUBECONFIG={running.kubeconfig()}
          export PATH={running.plane.programs}:$PATH      # kubectl and helm of its version

        Install the operator, with the image {running.image} and a store, both already there:

          kubectl create namespace agentrun
          for namespace in agentrun default; do kubectl -n $namespace apply -f {credentials}; done
          helm install agentrun-crds charts/agentrun-crds
          helm install agentrun charts/agentrun -n agentrun -f {values}

        Then the refund example, as README has it. For `kubectl agentrun show` and `logs`, which read the store:

          . {variables}

        Its users are real: {running.kubeconfig("ana").parent}/USER.kubeconfig for {", ".join(PEOPLE)};
        ben and carl are in the group finance. The world outside, for workflows of your own:

          a model      {running.model_url}   (key {MODEL_KEY})
          the shop     {running.backend_url}      (token of payments {TOKEN})
          a store      {store.endpoint}      (bucket {running.bucket})

        There is no way to other machines. Pods know the names of Services, and no others.

        `make cluster-down` ends it.
        """
    )


def _written(name: str, text: str) -> Path:
    """Write a file into the cluster's folder, readable by its owner only."""
    path = folder() / name
    path.touch(0o600)
    path.write_text(textwrap.dedent(text))
    return path


if __name__ == "__main__":
    sys.exit(main())
