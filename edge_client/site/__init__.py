"""The site as a process: what it does with each message, its durable state, its configuration."""
