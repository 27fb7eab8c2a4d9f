"""How a process listens to browsers and programs of its own machine: addresses, tokens, TLS, patience."""
