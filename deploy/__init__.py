"""How Mailroom is run: the local stack, the gateway, the container image and what both are derived from."""
