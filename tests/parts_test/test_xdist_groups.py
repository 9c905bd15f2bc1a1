"""pytest-xdist runs the tests of one group in one process. It reads the group from a test's id."""

from __future__ import annotations

import pytest


@pytest.mark.xdist_group("groups-are-named")
def test_group_is_part_of_the_test_id_under_xdist(request: pytest.FixtureRequest) -> None:
    has_groups = bool(getattr(request.config.option, "loadgroup", False))
    assert request.node.nodeid.endswith("@groups-are-named") == has_groups
