-- Hosts as network sweeps found them (SWEEP). The latest message of a key replaces the row.

CREATE TABLE IF NOT EXISTS sweep_host_states (
    host_ip                text NOT NULL,
    gateway_id             text NOT NULL,
    agent_id               text NOT NULL,
    partition              text NOT NULL,
    network_cidr           text,
    hostname               text,
    mac                    text,
    icmp_available         boolean,
    icmp_response_time_ns  bigint,
    -- Percent.
    icmp_packet_loss       double precision,
    tcp_ports_scanned      jsonb,
    tcp_ports_open         jsonb,
    port_scan_results      jsonb,
    last_sweep_time        timestamptz NOT NULL,
    first_seen             timestamptz,
    -- With it what has no column, and what did not fit its column.
    metadata               jsonb,
    -- When the stream took the message: a late redelivery of an older one does not replace a newer one.
    received_at            timestamptz,
    created_at             timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (host_ip, gateway_id, partition, last_sweep_time)
);

-- With TimescaleDB: hypertable by last_sweep_time
CREATE INDEX IF NOT EXISTS idx_sweep_host_states_time ON sweep_host_states (last_sweep_time DESC);
