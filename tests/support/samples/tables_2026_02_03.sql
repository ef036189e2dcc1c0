-- On top of 2026-02-01: tables of the platform's own writers.
CREATE TABLE platform.ocsf_events (id uuid NOT NULL, time timestamptz NOT NULL, class_uid integer NOT NULL,
  category_uid integer NOT NULL, type_uid integer NOT NULL, activity_id integer NOT NULL, activity_name text,
  severity_id integer, severity text, message text, status_id integer, status text, status_code text,
  status_detail text, metadata jsonb NOT NULL DEFAULT '{}', observables jsonb NOT NULL DEFAULT '[]', trace_id text,
  span_id text, actor jsonb NOT NULL DEFAULT '{}', device jsonb NOT NULL DEFAULT '{}',
  src_endpoint jsonb NOT NULL DEFAULT '{}', dst_endpoint jsonb NOT NULL DEFAULT '{}', log_name text,
  log_provider text, log_level text, log_version text, unmapped jsonb NOT NULL DEFAULT '{}', raw_data text,
  created_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (time, id));
CREATE INDEX ON platform.ocsf_events (time DESC);
CREATE INDEX ON platform.ocsf_events (severity_id);
CREATE TABLE platform.ocsf_network_activity (time timestamptz NOT NULL, class_uid integer NOT NULL DEFAULT 4001,
  category_uid integer NOT NULL DEFAULT 4, activity_id integer NOT NULL DEFAULT 6,
  type_uid integer NOT NULL DEFAULT 400106, severity_id integer NOT NULL DEFAULT 1, start_time timestamptz,
  end_time timestamptz, src_endpoint_ip text, src_endpoint_port integer, src_as_number integer, dst_endpoint_ip text,
  dst_endpoint_port integer, dst_as_number integer, protocol_num integer, protocol_name text, protocol_source text,
  tcp_flags integer, tcp_flags_labels text[], tcp_flags_source text, dst_service_label text,
  dst_service_source text, bytes_total bigint, packets_total bigint, bytes_in bigint, bytes_out bigint,
  packets_in bigint NOT NULL DEFAULT 0, packets_out bigint NOT NULL DEFAULT 0, direction_label text,
  direction_source text, src_hosting_provider text, dst_hosting_provider text, src_mac text, dst_mac text,
  sampler_address text, ocsf_payload jsonb NOT NULL, partition text DEFAULT 'default',
  created_at timestamptz NOT NULL DEFAULT now());
CREATE INDEX ON platform.ocsf_network_activity USING gin (ocsf_payload);
