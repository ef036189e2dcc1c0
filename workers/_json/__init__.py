"""JSON: payloads, records, CloudEvents and flat rows."""
