"""`fedmedclip control metrics`."""

from fedmedclip.aggregator.control_cli import ConfigOption


def metrics_command(config: ConfigOption) -> None:
    """Print the run's status as Prometheus reads it, running or not: for node_exporter's text files."""
    from fedmedclip.aggregator.control import read_status
    from fedmedclip.aggregator.prometheus import metrics_text

    print(metrics_text(read_status(config)).decode(), end="")
