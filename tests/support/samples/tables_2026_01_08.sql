-- What the schemas of tenants changed on 2026-01-08, on top of December 2025.
ALTER TABLE timeseries_metrics RENAME COLUMN poller_id TO gateway_id;
ALTER TABLE netflow_metrics RENAME COLUMN poller_id TO gateway_id;
ALTER TABLE sweep_host_states RENAME COLUMN poller_id TO gateway_id;
ALTER TABLE otel_metrics ADD COLUMN unit text;
CREATE INDEX idx_otel_metrics_unit ON otel_metrics (unit);
DROP TABLE logs;
CREATE TABLE logs (id uuid NOT NULL DEFAULT gen_random_uuid(), timestamp timestamptz NOT NULL, trace_id text,
  span_id text, severity_text text, severity_number integer, body text, service_name text, service_version text,
  service_instance text, scope_name text, scope_version text, attributes jsonb DEFAULT '{}',
  resource_attributes jsonb DEFAULT '{}', tenant_id uuid NOT NULL, created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (timestamp, id));
CREATE INDEX idx_logs_severity ON logs (severity_number);
CREATE INDEX idx_logs_tenant ON logs (tenant_id);
CREATE VIEW otel_trace_summaries AS
  SELECT trace_id, min(timestamp) AS timestamp, count(*) AS spans FROM otel_traces GROUP BY trace_id;
