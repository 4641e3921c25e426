"""The services: islands that meet only in `contracts` and on Kafka, over the plumbing in `services.kit`."""
