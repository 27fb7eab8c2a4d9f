"""The door for programs: images by HTTP, answers as JSON."""
