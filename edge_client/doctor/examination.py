"""All that the doctor looks at, in the order in which it is told."""

from pathlib import Path

from fedmedclip.edge_client.doctor.broker import reach
from fedmedclip.edge_client.doctor.clock import clock
from fedmedclip.edge_client.doctor.finding import Finding, bad
from fedmedclip.edge_client.doctor.machine import disk, memory, processor, secrets
from fedmedclip.edge_client.doctor.training import folder_of, training
from fedmedclip.edge_client.doctor.work import features, images, providers, self_test, speed, split
from fedmedclip.edge_client.features.providers import PROCESSOR_ALONE
from fedmedclip.edge_client.images.split import SPLIT_FILE
from fedmedclip.edge_client.site.configuration import SiteConfiguration
from fedmedclip.edge_client.site.group_key import GROUP_KEY
from fedmedclip.edge_client.site.roster_follower import roster_follower
from fedmedclip.protocol.bundle.bundle import MANIFEST, Bundle, open_bundle
from fedmedclip.protocol.configuration import beside, path_faults, read_configuration
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.state_folder import is_claimed
from fedmedclip.protocol.trust.decision import trust_of_site


def examine(
    bundle_folder: Path | None, configuration_file: Path | None, *, with_broker: bool = True
) -> list[Finding]:
    """Look at this machine, with a bundle at that, and with a site's configuration at all of its work.

    The broker and the files for it are left out where `with_broker` is false: a site that is not approved
    has no certificate yet.

    Raises BundleError for a bundle and InvalidInputError for a configuration that cannot be used.
    """
    configuration, data_fault = None, None
    if configuration_file is not None:
        configuration = read_configuration(configuration_file, SiteConfiguration)
        faults = {
            (fault.table, fault.setting): fault.line
            for fault in path_faults(configuration_file, configuration)
            if with_broker or fault.table != "broker"
        }
        if bundle_folder is not None:
            faults.pop(("site", "bundle"), None)
        # Without images the rest can be looked at still; that they are missing is a finding of its own.
        data_fault = faults.pop(("site", "data"), None)
        if faults:
            raise InvalidInputError(next(iter(faults.values())))
        bundle_folder = bundle_folder or beside(configuration_file, configuration.site.bundle)
    bundle = None if bundle_folder is None else open_bundle(bundle_folder)
    if bundle is not None and configuration is not None and configuration_file is not None:
        site = configuration.site
        follower = roster_follower(configuration_file, site)
        roster = None if follower is None else follower.roster
        trust_of_site(site.aggregator_key, roster, insecure=site.insecure).require_bundle(bundle)
    resources = None if configuration is None else configuration.resources
    threads = None if resources is None else resources.threads
    wanted = PROCESSOR_ALONE if resources is None else resources.providers
    state = Path.cwd()
    if configuration is not None and configuration_file is not None:
        state = beside(configuration_file, configuration.site.state)
    findings = [
        processor(),
        memory(_encoder_bytes(bundle), training=configuration is not None),
        disk(state),
        clock([path for path in (bundle_folder and bundle_folder / MANIFEST, state) if path]),
        providers(wanted),
        speed(bundle, threads, wanted),
    ]
    if bundle is not None:
        findings.append(self_test(bundle, threads, wanted))
        if configuration is not None and configuration_file is not None:
            findings += _site(configuration, configuration_file, bundle, state, data_fault, with_broker)
    return findings


def _site(
    configuration: SiteConfiguration,
    configuration_file: Path,
    bundle: Bundle,
    state: Path,
    data_fault: str | None,
    with_broker: bool,
) -> list[Finding]:
    site = configuration.site
    data = beside(configuration_file, site.data)
    store = beside(configuration_file, site.feature_store) if site.feature_store else state / "features.db"
    broker = configuration.broker.relative_to(configuration_file.resolve().parent)
    findings = [
        images(data, bundle, configuration.images, configuration.split.group_column)
        if data_fault is None
        else bad("data", data_fault, "correct site.data"),
        features(store),
        *filter(None, [split(state / SPLIT_FILE)]),
        training(folder_of("torch")),
        secrets(
            {
                "site.key": state / "site.key",
                GROUP_KEY: state / GROUP_KEY,
                "broker.key_file": broker.key_file,
                "broker.password_file": broker.password_file,
            }
        ),
    ]
    if with_broker:
        running = broker.client_id is not None and is_claimed(state)
        findings += reach(broker, site.federation, site.name, running=running)
    return findings


def _encoder_bytes(bundle: Bundle | None) -> int:
    return 0 if bundle is None else bundle.image_encoder_bytes
