"""Flow records: NetFlow, IPFIX and sFlow, as protobuf and as JSON."""
