"""The example configurations of deploy/ and configs/ decode, and are those of the installed command."""

import msgspec
import pytest

from fedmedclip.aggregator.configuration import AggregatorConfiguration
from fedmedclip.edge_client.learning.settings import TrainingSettings
from fedmedclip.protocol.configuration import read_configuration
from fedmedclip.protocol.configuration.examples import EXAMPLES
from tests import ROOT

DEPLOY = ROOT / "deploy"


@pytest.mark.parametrize("name", ["aggregator.toml", "site.toml"])
def test_the_examples_are_those_of_the_installed_command(name):
    assert (DEPLOY / name).read_text() == (EXAMPLES / name).read_text()


@pytest.mark.parametrize("path", sorted((DEPLOY.parent / "configs" / "papers").glob("*.toml")), ids=str)
def test_the_papers_configurations_are_valid(path):
    configuration = read_configuration(path, AggregatorConfiguration)
    assert configuration.federation.method == path.stem
    msgspec.convert(configuration.training, TrainingSettings)
