-- The tables that later deployments changed, on top of those of December 2025.
ALTER TABLE timeseries_metrics RENAME COLUMN poller_id TO gateway_id;
ALTER TABLE timeseries_metrics ADD COLUMN series_key text NOT NULL DEFAULT '';
ALTER TABLE netflow_metrics RENAME COLUMN poller_id TO gateway_id;
ALTER TABLE sweep_host_states RENAME COLUMN poller_id TO gateway_id;
ALTER TABLE otel_metrics ADD COLUMN unit text;
DROP TABLE logs;
CREATE TABLE logs (id uuid NOT NULL DEFAULT gen_random_uuid(), timestamp timestamptz NOT NULL, trace_id text,
  span_id text, severity_text text, severity_number integer, body text, service_name text, service_version text,
  service_instance text, scope_name text, scope_version text, attributes jsonb DEFAULT '{}',
  resource_attributes jsonb DEFAULT '{}', observed_timestamp timestamptz, trace_flags integer, event_name text,
  scope_attributes text, source text, created_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (timestamp, id));
