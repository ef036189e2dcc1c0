-- Measurements (TELEMETRY). No unique key: the ledger keeps redeliveries out, and a COPY goes straight in.

CREATE TABLE IF NOT EXISTS timeseries_metrics (
    timestamp         timestamptz NOT NULL,
    gateway_id        text NOT NULL,
    agent_id          text,
    metric_name       text NOT NULL,
    metric_type       text NOT NULL,
    device_id         text,
    value             double precision NOT NULL,
    unit              text,
    tags              jsonb,
    partition         text,
    -- As the producer gave it: value is not multiplied.
    scale             double precision,
    is_delta          boolean DEFAULT false,
    target_device_ip  text,
    if_index          integer,
    -- With it what has no column, and what did not fit its column.
    metadata          jsonb,
    created_at        timestamptz NOT NULL DEFAULT now()
);

-- With TimescaleDB: hypertable by timestamp
CREATE INDEX IF NOT EXISTS idx_timeseries_metrics_timestamp ON timeseries_metrics (timestamp DESC);

CREATE INDEX IF NOT EXISTS idx_timeseries_metrics_device_time ON timeseries_metrics (device_id, timestamp DESC);
