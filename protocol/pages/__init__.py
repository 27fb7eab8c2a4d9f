"""What the pages of aggregator and site are made of: the frame, tables, charts, live sections, buttons."""
