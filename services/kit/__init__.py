"""Plumbing that the services share. It may import `contracts`, and knows no service."""
