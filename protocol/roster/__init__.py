"""Who is a member of the federation, with which keys, since when and by whose approval."""
