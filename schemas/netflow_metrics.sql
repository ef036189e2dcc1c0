-- Flow records (NETFLOW): NetFlow, IPFIX and sFlow. Indexed by time only: every further index costs each of many rows.

CREATE TABLE IF NOT EXISTS netflow_metrics (
    -- Received, else end, else start of the flow.
    timestamp        timestamptz NOT NULL,
    gateway_id       text,
    agent_id         text,
    device_id        text,
    flow_direction   text,
    src_addr         text,
    dst_addr         text,
    src_port         integer,
    dst_port         integer,
    -- The IP protocol's number.
    protocol         integer,
    -- As they were sampled: not multiplied by the sampling rate.
    packets          bigint,
    octets           bigint,
    sampler_address  text,
    -- SNMP indexes of the interfaces.
    input_snmp       integer,
    output_snmp      integer,
    -- Everything else, under the names of goflow2: sampling_rate, time_flow_start_ns, src_as, next_hop, tcp_flags ...
    metadata         jsonb,
    created_at       timestamptz NOT NULL DEFAULT now()
);

-- With TimescaleDB: hypertable by timestamp
CREATE INDEX IF NOT EXISTS idx_netflow_metrics_timestamp ON netflow_metrics (timestamp DESC);
