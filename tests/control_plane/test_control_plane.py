"""The API server itself: what the other tests on it take for granted."""

from __future__ import annotations

import json

from tests.cluster.control_plane import ControlPlane


def test_users_are_themselves(control_plane: ControlPlane) -> None:
    groups = {
        user: json.loads(control_plane.kubectl("auth", "whoami", "-o", "json", user=user).stdout)["status"]["userInfo"]
        for user in ("ana", "ben", "carl", "eve")
    }
    assert {user: info["username"] for user, info in groups.items()} == {user: user for user in groups}
    finance = [user for user, info in groups.items() if "finance" in info["groups"]]
    assert finance == ["ben", "carl"]
    assert control_plane.kubectl("get", "pods", user="eve", check=False).returncode == 1


def test_writes_are_counted_in_the_audit_log(control_plane: ControlPlane) -> None:
    before = len(control_plane.audited())
    control_plane.kubectl("create", "configmap", "counted", "-n", "default")
    creations = [
        line["objectRef"]["name"]
        for line in control_plane.audited()[before:]
        if line["verb"] == "create" and "objectRef" in line
    ]
    assert creations == ["counted"]


def test_helm_speaks_to_the_cluster(control_plane: ControlPlane) -> None:
    assert control_plane.helm("version", "--short").stdout.startswith("v3.")
    assert isinstance(json.loads(control_plane.helm("list", "-A", "-o", "json").stdout), list)


def test_the_api_server_comes_back_and_keeps_what_it_knew(control_plane: ControlPlane) -> None:
    control_plane.kubectl("create", "configmap", "kept", "-n", "default")
    first = control_plane.api_server.pid
    control_plane.restart_api_server()
    assert control_plane.api_server.pid != first
    assert control_plane.get("configmap", "kept", "-n", "default")["metadata"]["name"] == "kept"
