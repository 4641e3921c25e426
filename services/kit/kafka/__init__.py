"""Kafka: the consumer loop for all groups, the publisher, the codec, and the care of topics."""
