"""Answers about images, offline: prediction, evaluation, one deployable file."""
