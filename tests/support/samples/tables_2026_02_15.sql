-- On top of 2026-02-03: flows of a second version.
CREATE TABLE platform.netflow_metrics (timestamp timestamptz NOT NULL, src_ip inet, dst_ip inet, sampler_address inet,
  src_port integer, dst_port integer, protocol integer, bytes_total bigint, packets_total bigint, as_path integer[],
  bgp_communities integer[], partition text NOT NULL DEFAULT 'default', metadata jsonb,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (timestamp, src_ip, dst_ip, protocol, src_port, dst_port));
CREATE INDEX ON platform.netflow_metrics USING gin (as_path);
CREATE INDEX ON platform.netflow_metrics USING gin (bgp_communities);
