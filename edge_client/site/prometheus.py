"""What Prometheus reads of a site: counts and sums, nothing of any image."""

from fedmedclip.edge_client.site.numbers import CONSENT, SiteNumbers
from fedmedclip.protocol.exposition import Exposition

PREFIX = "fedmedclip_site"


def metrics_text(numbers: SiteNumbers) -> bytes:
    """Return what is known as metrics named fedmedclip_site_*, in Prometheus' text format.

    Raises ModuleNotFoundError without prometheus-client.
    """
    metrics = Exposition(PREFIX)
    metrics.info("member", "Which site it is.", federation=numbers.federation, site=numbers.site)
    metrics.gauge("up", "1 while the site runs.", numbers.running)
    metrics.gauge("connected", "1 while the connection to the broker stands.", numbers.connected)
    metrics.gauge("joined", "1 while the aggregator has admitted this site.", numbers.joined)
    metrics.counter("connections", "Connections to the broker since the start.", numbers.connections)
    metrics.counter("refused_messages", "Messages that were refused.", numbers.refused_messages)
    _run(metrics, numbers)
    _traffic(metrics, numbers)
    for part, images in sorted(numbers.images.items()):
        metrics.gauge("images", "Images by split; none for fewer than smallest_count.", images, part=part)
    metrics.gauge("privacy_spent_epsilon", "What the run's updates have cost.", numbers.privacy_spent)
    metrics.gauge("privacy_epsilon", "What the run's updates may cost.", numbers.privacy_epsilon)
    for state in CONSENT:
        metrics.gauge(
            "consent", "1 for what the operator has decided of the newest plan.",
            None if numbers.consent is None else numbers.consent == state, state=state,
        )  # fmt: skip
    metrics.gauge(
        "certificate_expiry_timestamp_seconds", "When this site's certificate ends, in seconds since 1970.",
        numbers.certificate_ends,
    )  # fmt: skip
    return metrics.text()


def _run(metrics: Exposition, numbers: SiteNumbers) -> None:
    metrics.gauge("run", "Number of the run.", numbers.run)
    metrics.gauge("version", "Newest version of the global head that is here.", numbers.version)
    metrics.gauge("rounds", "Rounds of the run: its last version.", numbers.rounds)
    metrics.gauge("paused", "1 while the run is paused.", numbers.paused)
    metrics.gauge("active_version", "Version of the heads that answer.", numbers.active_version)
    metrics.gauge("trained_round", "Newest round that was trained here.", numbers.trained_round)
    metrics.gauge("training_seconds", "Seconds that the newest round took.", numbers.training_seconds)
    for head, accuracy in sorted(numbers.accuracy.items()):
        metrics.gauge("accuracy", "Of the newest version on the validation split.", accuracy, head=head)


def _traffic(metrics: Exposition, numbers: SiteNumbers) -> None:
    metrics.counter("sent_bytes", "MQTT payload bytes that have left.", numbers.sent_bytes)
    metrics.counter("received_bytes", "MQTT payload bytes that have come.", numbers.received_bytes)
    metrics.gauge("sent_bytes_today", "Those of today that have left.", numbers.sent_bytes_today)
    metrics.gauge("received_bytes_today", "Those of today that have come.", numbers.received_bytes_today)
    metrics.gauge("limit_bytes_per_day", "Bytes that may leave on a day.", numbers.bytes_per_day)
    metrics.gauge("limit_bytes_in_all", "Bytes that may leave in all.", numbers.bytes_in_all)
    metrics.gauge("limit_rounds", "Rounds, of all runs, to contribute to at most.", numbers.rounds_in_all)
    metrics.gauge("contributed_rounds", "Rounds to which it has contributed.", numbers.contributed_rounds)
    metrics.gauge("ledger_entries", "Entries of the ledger.", numbers.ledger_entries)
