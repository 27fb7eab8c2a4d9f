"""A federation in one process: sites, features, training, messages and what they weigh."""
