"""What all tests share: shapes are checked at run time, the cache is a fresh folder, recordings are looked up."""

import os
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

# From here on each call into avlib is checked against its annotations; users do not pay for that.
install_import_hook("avlib", "beartype.beartype")

ROOT = Path(__file__).parents[1]
RECORDINGS = Path(os.environ.get("AVLIB_TEST_MEDIA", ROOT.parent / "shared" / "media"))


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


def recording(name: str) -> Path:
    """A real recording, which is not part of the project; without it the test is skipped, and says so."""
    path = RECORDINGS / name
    if not path.exists():
        pytest.skip(f"no recording {path}; set AVLIB_TEST_MEDIA to a folder that has it")
    return path
