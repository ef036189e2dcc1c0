-- What is there on 2026-05-03, on top of 2026-03-06.
CREATE INDEX idx_logs_id ON platform.logs (id);
CREATE INDEX ON platform.logs ((coalesce(observed_timestamp, timestamp)));
DROP TABLE platform.netflow_metrics;
