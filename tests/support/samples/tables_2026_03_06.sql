-- On top of 2026-02-15.
ALTER TABLE platform.timeseries_metrics ADD COLUMN series_key text NOT NULL,
  DROP CONSTRAINT timeseries_metrics_pkey, ADD PRIMARY KEY (timestamp, gateway_id, series_key);
