import pytest

from snip_tf.files import writing
from tests.files.folders import no_exchange


@pytest.fixture(params=["exchange", "two renames"])
def either_way(request, monkeypatch):
    """Where the system exchanges two folders at once, and where it cannot."""
    if request.param == "two renames":
        monkeypatch.setattr(writing, "_rename_exchange", no_exchange)
