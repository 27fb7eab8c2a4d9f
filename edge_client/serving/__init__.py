"""The resident service of a clinic's box: its doors, its durable queue, and where its answers go."""
