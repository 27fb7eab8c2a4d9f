"""What a federation gives a hospital that joins with few labelled images, or none."""
