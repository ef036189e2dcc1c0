-- Log records (LOGS). Column names follow the OpenTelemetry logs data model.

CREATE TABLE IF NOT EXISTS logs (
    timestamp            timestamptz NOT NULL,
    observed_timestamp   timestamptz,
    trace_id             text NOT NULL DEFAULT '',
    span_id              text NOT NULL DEFAULT '',
    -- The W3C trace flags, the low 8 bits of flags.
    trace_flags          integer,
    flags                bigint,
    severity_text        text,
    severity_number      integer,
    body                 text,
    event_name           text,
    service_name         text,
    service_version      text,
    service_instance     text,
    scope_name           text,
    scope_version        text,
    scope_attributes     jsonb,
    attributes           jsonb,
    resource_attributes  jsonb,
    dropped_attributes_count bigint,
    schema_url           text,
    resource_schema_url  text,
    -- Where the record came in: otel, syslog, snmp, internal.
    source               text,
    -- What has no column of its own: a body that is not a string with its type, dropped counts of resource and scope.
    data                 jsonb,
    created_at           timestamptz NOT NULL DEFAULT now()
);

-- With TimescaleDB: hypertable by timestamp
CREATE INDEX IF NOT EXISTS idx_logs_timestamp ON logs (timestamp DESC);

CREATE INDEX IF NOT EXISTS idx_logs_service_time ON logs (service_name, timestamp DESC);
CREATE INDEX IF NOT EXISTS idx_logs_trace_id ON logs (trace_id) WHERE trace_id <> '';
