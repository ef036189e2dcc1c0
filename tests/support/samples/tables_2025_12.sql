-- The tables as a deployment of December 2025 has them.
CREATE TABLE timeseries_metrics (timestamp timestamptz NOT NULL, poller_id text NOT NULL, agent_id text,
  metric_name text NOT NULL, metric_type text NOT NULL, device_id text, value double precision NOT NULL, unit text,
  tags jsonb, partition text, scale double precision, is_delta boolean DEFAULT false, target_device_ip text,
  if_index integer, metadata jsonb, created_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE events (event_timestamp timestamptz NOT NULL, specversion text, id text NOT NULL, source text, type text,
  datacontenttype text, subject text, remote_addr text, host text, level integer, severity text, short_message text,
  version text, raw_data text, created_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (event_timestamp, id));
CREATE UNIQUE INDEX idx_events_id_unique ON events (id, event_timestamp);
CREATE TABLE sweep_host_states (host_ip text NOT NULL, poller_id text NOT NULL, agent_id text NOT NULL,
  partition text NOT NULL, network_cidr text, hostname text, mac text, icmp_available boolean,
  icmp_response_time_ns bigint, icmp_packet_loss double precision, tcp_ports_scanned jsonb, tcp_ports_open jsonb,
  port_scan_results jsonb, last_sweep_time timestamptz NOT NULL, first_seen timestamptz, metadata jsonb,
  created_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (host_ip, poller_id, partition, last_sweep_time));
CREATE TABLE netflow_metrics (timestamp timestamptz NOT NULL, poller_id text, agent_id text, device_id text,
  flow_direction text, src_addr text, dst_addr text, src_port integer, dst_port integer, protocol integer,
  packets bigint, octets bigint, sampler_address text, input_snmp integer, output_snmp integer, metadata jsonb,
  created_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE otel_metrics (timestamp timestamptz NOT NULL, trace_id text, span_id text, service_name text,
  span_name text, span_kind text, duration_ms double precision, duration_seconds double precision, metric_type text,
  http_method text, http_route text, http_status_code text, grpc_service text, grpc_method text,
  grpc_status_code text, is_slow boolean, component text, level text,
  created_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (timestamp, span_name, service_name, span_id));
CREATE TABLE otel_traces (timestamp timestamptz NOT NULL, trace_id text, span_id text, parent_span_id text, name text,
  kind integer, start_time_unix_nano bigint, end_time_unix_nano bigint, service_name text, service_version text,
  service_instance text, scope_name text, scope_version text, status_code integer, status_message text,
  attributes text, resource_attributes text, events text, links text,
  created_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (timestamp, trace_id, span_id));
CREATE TABLE logs (timestamp timestamptz NOT NULL, trace_id text, span_id text, severity_text text,
  severity_number integer, body text, service_name text, service_version text, service_instance text, scope_name text,
  scope_version text, attributes text, resource_attributes text, created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (timestamp, trace_id, span_id));
