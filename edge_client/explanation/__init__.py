"""Why an answer: which regions of the image carry it, and which training images are nearest to it."""
