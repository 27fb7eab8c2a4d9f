"""Which version of the heads answers at a site: all that it keeps, how they were judged, and what decides."""
