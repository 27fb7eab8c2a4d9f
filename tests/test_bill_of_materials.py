"""What this installation is made of, in the form that CycloneDX 1.6 asks for."""

import base64
import hashlib
import json
import re
from importlib.metadata import distribution

import pytest
from typer.testing import CliRunner

from fedmedclip.bill_of_materials import bill_of_materials, normalised
from fedmedclip.command import app

SERIAL = re.compile("urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
PURL = re.compile(r"pkg:pypi/[a-z0-9]+(-[a-z0-9]+)*@[A-Za-z0-9.%-]+")


@pytest.fixture(scope="module")
def document():
    done = CliRunner().invoke(app, ["sbom"])
    assert done.exit_code == 0
    return json.loads(done.output)


def test_it_has_the_fields_that_the_specification_asks_for(document):
    assert (document["bomFormat"], document["specVersion"], document["version"]) == ("CycloneDX", "1.6", 1)
    assert SERIAL.fullmatch(document["serialNumber"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", document["metadata"]["timestamp"])
    components = [document["metadata"]["component"], *document["components"]]
    for component in components:
        assert component["type"] in ("library", "application")
        assert component["name"]
        assert component["version"]
        assert PURL.fullmatch(component["purl"]), component["purl"]
        assert all(re.fullmatch("[0-9a-f]{64}", found["content"]) for found in component.get("hashes", ()))
        for licence in component.get("licenses", ()):
            assert licence.keys() == {"expression"} or licence["license"]["name"]
    references = [component["bom-ref"] for component in components]
    assert len(set(references)) == len(references)
    assert {found["ref"] for found in document["dependencies"]} == set(references)
    for found in document["dependencies"]:
        assert set(found["dependsOn"]) <= set(references)


def test_it_names_what_is_installed_and_nothing_else(document):
    found = {component["name"]: component["version"] for component in document["components"]}
    for name in ("numpy", "onnxruntime", "cryptography", "cffi", "torch"):
        assert found[name] == distribution(name).version
    assert document["metadata"]["component"]["name"] == "fedmedclip-edge"
    ours = next(part for part in document["dependencies"] if part["ref"].startswith("pkg:pypi/fedmedclip"))
    assert any(reference.startswith("pkg:pypi/numpy@") for reference in ours["dependsOn"])
    assert not any(normalised(name) == "no-such-package" for name in found)
    licences = {part["name"]: part.get("licenses") for part in document["components"]}
    assert all(licences[name] for name in ("numpy", "onnxruntime", "cryptography"))


def test_a_hash_is_that_of_the_files_of_the_wheel(document):
    component = next(part for part in document["components"] if part["name"] == "msgspec")
    lines = []
    for row in distribution("msgspec").read_text("RECORD").splitlines():
        path, digest, _ = row.rsplit(",", 2)
        if digest and not path.endswith(("INSTALLER", "REQUESTED", "direct_url.json")):
            raw = base64.urlsafe_b64decode(digest.removeprefix("sha256=") + "=")
            lines.append(f"{raw.hex()}  {path}\n")
    lines.sort(key=lambda line: line.split("  ")[1])
    assert component["hashes"] == [
        {"alg": "SHA-256", "content": hashlib.sha256("".join(lines).encode()).hexdigest()}
    ]


@pytest.mark.slow
def test_it_is_the_same_twice_but_for_time_and_number(document, tmp_path):
    assert CliRunner().invoke(app, ["sbom", "--output", str(tmp_path / "sbom.json")]).exit_code == 0
    again = json.loads((tmp_path / "sbom.json").read_text())
    for found in (document, again):
        found["serialNumber"] = found["metadata"]["timestamp"] = ""
    assert again == document


def test_a_distribution_that_is_not_installed_has_none():
    with pytest.raises(ModuleNotFoundError):
        bill_of_materials("no-such-package")
