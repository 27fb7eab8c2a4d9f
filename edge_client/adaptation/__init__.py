"""A federation's head fitted to the images of a place that has few labels, or none: `fedmedclip adapt`."""
