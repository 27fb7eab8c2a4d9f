"""The page at the aggregator: what a browser shows of a federation while it trains."""
