"""What lies in a site's data: classes, sizes, look-alikes, likely label errors; for that site alone."""
