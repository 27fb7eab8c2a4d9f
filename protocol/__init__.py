"""Everything that travels between sites and aggregator, and how it travels."""
