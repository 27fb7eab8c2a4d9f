"""The federation's bundle, signed with the coordinator's key of today."""

from fedmedclip.aggregator.enrolment.folder import FederationFolder
from fedmedclip.protocol.bundle.bundle import Bundle, open_bundle
from fedmedclip.protocol.bundle.signature import sign_bundle, signer
from fedmedclip.protocol.errors import InvalidInputError


def signed_bundle(folder: FederationFolder) -> Bundle:
    """Return the bundle; one that a former key of the coordinator signed is signed anew.

    Raises InvalidInputError where there is none, or the coordinator never signed it: sites would refuse it.
    """
    path = folder.bundle
    if not (path / "manifest.json").exists():
        raise InvalidInputError(
            f"{folder.configuration_file} names the bundle {path}, which is not there; "
            "`fedmedclip export` makes one"
        )
    bundle, key, by = open_bundle(path), folder.key(), signer(path)
    if by != key.public_key and by in folder.roster().coordinator_keys:
        sign_bundle(path, key)
    elif by != key.public_key:
        raise InvalidInputError(
            f"bundle {path} is not signed by the coordinator, so sites would refuse it: "
            f"fedmedclip bundle sign {path} --key {folder.key_file}"
        )
    return bundle
