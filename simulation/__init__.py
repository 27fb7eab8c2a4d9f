"""Many sites on one machine: the demo, its images and its small CLIP."""
