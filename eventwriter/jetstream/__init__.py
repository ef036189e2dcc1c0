"""JetStream: deliveries in, acknowledgements out. Only this room knows NATS."""
