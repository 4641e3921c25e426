"""The whole stack on one machine without containers: real Kafka, real MongoDB, an AWS emulator, Caddy, the services."""
