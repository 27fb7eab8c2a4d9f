"""Who may speak to the broker: certificate authority, the broker's files and its access rules."""
