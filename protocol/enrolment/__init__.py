"""How a site becomes a member: an invitation, the site's request, the coordinator's answer."""
