-- Spans (OTEL_TRACES). Column names follow the OpenTelemetry trace data model.

CREATE TABLE IF NOT EXISTS otel_traces (
    timestamp            timestamptz NOT NULL,
    trace_id             text NOT NULL DEFAULT '',
    span_id              text NOT NULL DEFAULT '',
    parent_span_id       text,
    trace_state          text,
    flags                bigint,
    name                 text,
    -- 0 unspecified, 1 internal, 2 server, 3 client, 4 producer, 5 consumer.
    kind                 integer,
    start_time_unix_nano bigint,
    end_time_unix_nano   bigint,
    service_name         text,
    service_version      text,
    service_instance     text,
    scope_name           text,
    scope_version        text,
    scope_attributes     jsonb,
    -- 0 unset, 1 ok, 2 error.
    status_code          integer,
    status_message       text,
    attributes           jsonb,
    resource_attributes  jsonb,
    events               jsonb,
    links                jsonb,
    dropped_attributes_count bigint,
    dropped_events_count bigint,
    dropped_links_count  bigint,
    schema_url           text,
    resource_schema_url  text,
    -- What has no column of its own: dropped counts and entity references of resource and scope.
    data                 jsonb,
    created_at           timestamptz NOT NULL DEFAULT now()
);

-- With TimescaleDB: hypertable by timestamp
CREATE INDEX IF NOT EXISTS idx_otel_traces_timestamp ON otel_traces (timestamp DESC);

CREATE INDEX IF NOT EXISTS idx_otel_traces_service_time ON otel_traces (service_name, timestamp DESC);
CREATE INDEX IF NOT EXISTS idx_otel_traces_trace_id ON otel_traces (trace_id);
