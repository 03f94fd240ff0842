"""The fixture of tests beside the worst objects: `control_plane`. They take both cores: they run alone, one by one."""

from __future__ import annotations

from tests.cluster.conftest import control_plane, pytest_collection_finish

__all__ = ["control_plane", "pytest_collection_finish"]
