"""The federation folder at the centre: founding it, inviting sites, answering them, and who is a member."""
