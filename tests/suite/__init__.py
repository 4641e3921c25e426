"""How the tests are run: in which order, in how many processes, on which Kafka, MongoDB and emulator."""
