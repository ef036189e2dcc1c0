-- On top of 2026-01-17.
ALTER TABLE platform.logs ADD COLUMN observed_timestamp timestamptz, ADD COLUMN trace_flags integer,
  ADD COLUMN event_name text, ADD COLUMN scope_attributes text;
