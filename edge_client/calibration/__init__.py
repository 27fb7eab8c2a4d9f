"""How far the answers of heads are to be relied on, told from labelled images of one's own."""
