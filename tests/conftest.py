"""What all tests share: shapes are checked at run time, the cache is a fresh folder, recordings are looked up."""

import os
from pathlib import Path

import jaxtyping
import pytest
from jaxtyping import install_import_hook

# From here on each call into avlib is checked against its annotations; users do not pay for that.
install_import_hook("avlib", "beartype.beartype")

ROOT = Path(__file__).parents[1]
RECORDINGS = Path(os.environ.get("AVLIB_TEST_MEDIA", ROOT.parent / "shared" / "media"))


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="run the tests marked `long` too: trainings in full")


def pytest_configure(config):
    config.addinivalue_line("markers", "long: takes minutes, or repeats a shorter test on more clips; see --long")


def pytest_collection_modifyitems(config, items):
    """Leave out long tests, and begin with the notebooks, so that two processes end together."""
    left_out = [] if config.getoption("--long") else [item for item in items if item.get_closest_marker("long")]
    config.hook.pytest_deselected(items=left_out)
    kept = [item for item in items if item not in left_out]
    items[:] = sorted(kept, key=lambda item: item.path.name != "test_notebooks.py")


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory):
    """Everything that the session caches, so that neither the user's cache nor an older run can help a test.

    The processes of one session share it: what one has trained, or trains, the others need not.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cache"
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AVLIB_CACHE", str(folder))
        yield folder


@pytest.fixture
def unchecked():
    """Without the check of annotations, as for users: the functions' own checks answer."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def recording(name: str) -> Path:
    """A real recording, which is not part of the project; without it the test is skipped, and says so."""
    path = RECORDINGS / name
    if not path.exists():
        pytest.skip(f"no recording {path}; set AVLIB_TEST_MEDIA to a folder that has it")
    return path
