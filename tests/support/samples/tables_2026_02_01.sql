-- On top of 2026-01-18.
ALTER TABLE platform.logs ADD COLUMN source text;
CREATE INDEX idx_logs_source ON platform.logs (source);
