"""Order: whatever starts the real trainer comes last, so that a fast failure shows first. And both kinds of kernels."""

import pytest

from egsw_plugin.kernels import compiled


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.get_closest_marker("verl_run") is not None)


@pytest.fixture(scope="module", params=["compiled", "torch"])
def implementation(request):
    """The kernels' compiled loops, and the plain torch that stands in for them."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "torch":
            patch.setattr(compiled, "loops_for", lambda tensor: None)
        yield request.param
