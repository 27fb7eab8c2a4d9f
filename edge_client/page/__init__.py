"""The page of a site, for the hospital's operator: what it shows, and how that is drawn."""
