import pytest

from fedmedclip.aggregator.enrolment.folder import FederationFolder
from tests.aggregator.enrolment.centre import copy_of, found


@pytest.fixture(scope="session")
def founded(tmp_path_factory) -> FederationFolder:
    """A federation without members. Not to be changed."""
    return found(tmp_path_factory.mktemp("founded"))


@pytest.fixture
def folder(founded, tmp_path) -> FederationFolder:
    """A federation without members, of this test alone."""
    return copy_of(founded, tmp_path)
