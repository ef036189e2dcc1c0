-- Metric data points and performance records of spans (OTEL_METRICS).
-- Column names follow the OpenTelemetry metrics data model where they have no older name.

CREATE TABLE IF NOT EXISTS otel_metrics (
    timestamp            timestamptz NOT NULL,
    start_timestamp      timestamptz,
    -- Of the span itself, or of the first exemplar.
    trace_id             text NOT NULL DEFAULT '',
    -- Tells series of a metric, and records of a span, apart.
    series_key           text,
    span_id              text NOT NULL DEFAULT '',
    service_name         text,
    service_version      text,
    service_instance     text,
    -- Name of the span, or of the metric.
    span_name            text,
    span_kind            text,
    -- gauge, sum, histogram, exponential_histogram, summary; span, http, grpc, slow_span.
    metric_type          text,
    -- NULL for a point without recorded value; of a distribution it is the sum.
    value                double precision,
    -- The exact value of points that are integers.
    value_int            bigint,
    unit                 text,
    description          text,
    -- Only for units of time.
    duration_ms          double precision,
    duration_seconds     double precision,
    count                bigint,
    sum                  double precision,
    min                  double precision,
    max                  double precision,
    -- unspecified, delta, cumulative.
    temporality          text,
    is_monotonic         boolean,
    -- Bit 0: no recorded value.
    flags                bigint,
    http_method          text,
    http_route           text,
    http_status_code     text,
    grpc_service         text,
    grpc_method          text,
    grpc_status_code     text,
    is_slow              boolean,
    component            text,
    level                text,
    scope_name           text,
    scope_version        text,
    scope_attributes     jsonb,
    attributes           jsonb,
    resource_attributes  jsonb,
    schema_url           text,
    resource_schema_url  text,
    -- Buckets, bounds, quantiles, exemplars, and what else has no column of its own.
    data                 jsonb,
    created_at           timestamptz NOT NULL DEFAULT now()
);

-- With TimescaleDB: hypertable by timestamp
CREATE INDEX IF NOT EXISTS idx_otel_metrics_timestamp ON otel_metrics (timestamp DESC);

CREATE INDEX IF NOT EXISTS idx_otel_metrics_service_time ON otel_metrics (service_name, timestamp DESC);
