-- The tables of 2026-01-17, in a schema of their own; sweep_host_states and netflow_metrics are not made any more.
CREATE SCHEMA platform;
CREATE TABLE platform.timeseries_metrics (timestamp timestamptz NOT NULL, gateway_id text NOT NULL, agent_id text,
  metric_name text NOT NULL, metric_type text NOT NULL, device_id text, value double precision NOT NULL, unit text,
  tags jsonb, partition text, scale double precision, is_delta boolean, target_device_ip text, if_index integer,
  metadata jsonb, created_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (timestamp, gateway_id, metric_name));
CREATE INDEX ON platform.timeseries_metrics (timestamp);
CREATE INDEX ON platform.timeseries_metrics (metric_name);
CREATE INDEX ON platform.timeseries_metrics (device_id) WHERE device_id IS NOT NULL;
CREATE INDEX ON platform.timeseries_metrics (device_id, if_index, metric_name, metric_type, timestamp);
CREATE TABLE platform.events (event_timestamp timestamptz NOT NULL, specversion text, id text NOT NULL, source text,
  type text, datacontenttype text, subject text, remote_addr text, host text, level integer, severity text,
  short_message text, version text, raw_data text, created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (event_timestamp, id));
CREATE INDEX ON platform.events (source);
CREATE INDEX ON platform.events (severity);
CREATE TABLE platform.otel_metrics (timestamp timestamptz NOT NULL, trace_id text, span_id text, service_name text,
  span_name text, span_kind text, duration_ms double precision, duration_seconds double precision, metric_type text,
  http_method text, http_route text, http_status_code text, grpc_service text, grpc_method text,
  grpc_status_code text, is_slow boolean, component text, level text, unit text,
  created_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (timestamp, span_name, service_name, span_id));
CREATE TABLE platform.otel_traces (timestamp timestamptz NOT NULL, trace_id text, span_id text NOT NULL,
  parent_span_id text, name text, kind integer, start_time_unix_nano bigint, end_time_unix_nano bigint,
  service_name text, service_version text, service_instance text, scope_name text, scope_version text,
  status_code integer, status_message text, attributes text, resource_attributes text, events text, links text,
  created_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (timestamp, trace_id, span_id));
CREATE TABLE platform.logs (id uuid NOT NULL DEFAULT gen_random_uuid(), timestamp timestamptz NOT NULL, trace_id text,
  span_id text, severity_text text, severity_number integer, body text, service_name text, service_version text,
  service_instance text, scope_name text, scope_version text, attributes text, resource_attributes text,
  created_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (timestamp, id));
CREATE INDEX ON platform.logs (severity_number);
