"""OpenTelemetry's protocol (OTLP), as protobuf and as JSON."""
