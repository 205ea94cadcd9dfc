"""Order: whatever starts the real trainer comes last, so that a fast failure shows first."""


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.get_closest_marker("verl_run") is not None)
