"""A software bill of materials in CycloneDX 1.6 (ECMA-424), from the metadata that installed packages bring.

No library of its own: `importlib.metadata` knows the installed distributions, their requirements (PEP 508)
and the hashes of their files (RECORD, PEP 376).
"""

import base64
import hashlib
import platform
import re
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from typing import Any

SPECIFICATION = "1.6"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_LONGEST_LICENCE = 200
_BY_INSTALLERS = frozenset({"INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json"})


def bill_of_materials(root: str) -> dict[str, Any]:
    """Return the CycloneDX document of a distribution and of all that it requires and that is installed.

    An optional requirement counts where it is installed. Equal installations give equal documents but for
    serial number and time. Raises PackageNotFoundError when `root` is not installed.
    """
    found = _reachable(root)
    references = {name: _purl(package) for name, package in found.items()}
    main = normalised(root)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": SPECIFICATION,
        "serialNumber": f"urn:uuid:{uuid.uuid4()}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "lifecycles": [{"phase": "operations"}],
            "component": {**_component(found[main]), "type": "application"},
            "properties": [
                {
                    "name": "fedmedclip:python",
                    "value": f"{platform.python_implementation()} {platform.python_version()}",
                },
                {"name": "fedmedclip:platform", "value": f"{platform.system()} {platform.machine()}"},
            ],
        },
        "components": [_component(package) for name, package in sorted(found.items()) if name != main],
        "dependencies": [
            {
                "ref": references[name],
                "dependsOn": sorted({references[other] for other in _required(package) if other in found}),
            }
            for name, package in sorted(found.items())
        ],
    }


def normalised(name: str) -> str:
    """Return a distribution's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _reachable(root: str) -> dict[str, Distribution]:
    """Return the installed distributions that `root` leads to, itself included, by normalised name."""
    found = {normalised(root): distribution(root)}
    waiting = list(found.values())
    while waiting:
        for name in _required(waiting.pop()):
            if name not in found:
                try:
                    found[name] = distribution(name)
                except PackageNotFoundError:
                    continue
                waiting.append(found[name])
    return found


def _required(package: Distribution) -> Iterator[str]:
    """Yield the names that a distribution requires, whatever the markers: the unwanted are not installed."""
    for requirement in package.requires or ():
        if match := _NAME.match(requirement):
            yield normalised(match[0])


def _component(package: Distribution) -> dict[str, Any]:
    purl = _purl(package)
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": purl,
        "name": package.name,
        "version": package.version,
        "purl": purl,
    }
    if description := package.metadata["Summary"]:
        component["description"] = description
    if licences := _licences(package):
        component["licenses"] = licences
    if found := _record_hash(package):
        component["hashes"] = [{"alg": "SHA-256", "content": found[0]}]
        component["properties"] = [{"name": "fedmedclip:hashed", "value": found[1]}]
    return component


def _purl(package: Distribution) -> str:
    # A version may have what a URL keeps for itself: the + before a local part.
    return f"pkg:pypi/{normalised(package.name)}@{package.version.replace('+', '%2B')}"


def _licences(package: Distribution) -> list[dict[str, Any]]:
    """Return an SPDX expression (PEP 639) where there is one, else what classifiers or the old field name."""
    metadata = package.metadata
    if expression := metadata["License-Expression"]:
        return [{"expression": expression}]
    names = [
        value.rsplit(" :: ", 1)[-1]
        for value in metadata.get_all("Classifier") or ()
        if value.startswith("License :: ") and value != "License :: OSI Approved"
    ]
    text = " ".join((metadata["License"] or "").split())
    if not names and text and text != "UNKNOWN":
        names = [text[:_LONGEST_LICENCE]]
    return [{"license": {"name": name}} for name in names]


def _record_hash(package: Distribution) -> tuple[str, str] | None:
    """Return one hash over the file hashes of RECORD, and in words over what; None where there are none.

    Installers do not keep a wheel's own hash. This one is the same wherever the wheel is installed: what an
    installer adds or writes for the machine, such as commands with the interpreter's path, is left out.
    """
    lines = []
    for file in package.files or ():
        own = not file.as_posix().startswith("..") and file.name not in _BY_INSTALLERS
        if own and file.hash is not None and file.hash.mode == "sha256":
            digest = base64.urlsafe_b64decode(file.hash.value + "=" * (-len(file.hash.value) % 4))
            lines.append(f"{digest.hex()}  {file.as_posix()}\n")
    if not lines:
        return None
    lines.sort(key=lambda line: line[66:])
    return hashlib.sha256("".join(lines).encode()).hexdigest(), (
        f"the list of its {len(lines)} files in RECORD, as sha256sum prints it, sorted by path"
    )
