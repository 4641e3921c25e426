"""The published language of recipients: who must not be written to, and why."""
