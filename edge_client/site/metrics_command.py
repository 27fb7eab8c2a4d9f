"""`fedmedclip site metrics`."""

from fedmedclip.edge_client.site.command_line import ConfigOption


def metrics_command(config: ConfigOption) -> None:
    """Print where this site stands as Prometheus reads it, running or not: for node_exporter's text files."""
    from fedmedclip.edge_client.site.numbers import stored_numbers
    from fedmedclip.edge_client.site.prometheus import metrics_text

    print(metrics_text(stored_numbers(config)).decode(), end="")
