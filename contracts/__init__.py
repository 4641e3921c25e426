"""The published language of Mailroom: what may travel on Kafka and what the read models look like.

Depends on pydantic alone and imports nothing else of the project, so that any service of the CRM may use it.
"""
