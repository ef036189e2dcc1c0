-- eventwriter
-- What eventwriter keeps for itself: the ledger (which messages are done) and the dead letters.

CREATE SCHEMA IF NOT EXISTS eventwriter;

-- One row per consumer. It changes in the transaction that writes a batch, so it says exactly what is in the tables.
CREATE TABLE IF NOT EXISTS eventwriter.ledger (
    id               integer PRIMARY KEY,
    logical_stream   text NOT NULL,
    stream           text NOT NULL,
    -- A stream that was deleted and created again counts from 1 again: it gets a row of its own.
    stream_created   timestamptz NOT NULL,
    durable          text NOT NULL,
    done             int8multirange NOT NULL DEFAULT '{}',
    messages_written      bigint NOT NULL DEFAULT 0,
    messages_deadlettered bigint NOT NULL DEFAULT 0,
    messages_excluded     bigint NOT NULL DEFAULT 0,
    rows_written          bigint NOT NULL DEFAULT 0,
    updated_at       timestamptz NOT NULL DEFAULT now(),
    UNIQUE (stream, stream_created, durable)
) WITH (fillfactor = 10); -- room for heap-only updates: the row changes with every batch

-- Sequences up to this one are not the ledger's business: they were there before it was.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'eventwriter.ledger'::regclass AND attname = 'fold_after') THEN
        ALTER TABLE eventwriter.ledger RENAME COLUMN fold_after TO begins;
        UPDATE eventwriter.ledger SET begins = greatest(begins, coalesce(lower(done) - 1, 0));
    END IF;
END
$$;
ALTER TABLE eventwriter.ledger ALTER COLUMN id DROP IDENTITY IF EXISTS;
ALTER TABLE eventwriter.ledger
    -- No number twice, also after TRUNCATE with RESTART IDENTITY: dead letters of the row that had it may be there still.
    ALTER COLUMN id SET DEFAULT (random() * 2147483646)::integer + 1,
    ADD COLUMN IF NOT EXISTS begins bigint NOT NULL DEFAULT 0,
    -- Changes whenever the row means something else than before. Every statement says which one it knows, so nobody
    -- mistakes another row with the same number, or the same row with other filters, for the one that it opened.
    ADD COLUMN IF NOT EXISTS incarnation uuid NOT NULL DEFAULT gen_random_uuid(),
    -- Counts the changes: who remembers a later one knows that the database went back in time.
    ADD COLUMN IF NOT EXISTS version bigint NOT NULL DEFAULT 0,
    -- The consumer's filters, for which the ranges of "done" are believed; NULL: unknown, from before there was this.
    ADD COLUMN IF NOT EXISTS filters text[],
    -- The durable that took over what this row knows; nothing is written under the old one any more.
    ADD COLUMN IF NOT EXISTS continued_by text,
    -- Whose turn it is to compare the ledger with the stream, and until when.
    ADD COLUMN IF NOT EXISTS comparing uuid,
    ADD COLUMN IF NOT EXISTS comparing_until timestamptz;

-- What was believed done under earlier filters. It only changes together with the incarnation.
CREATE TABLE IF NOT EXISTS eventwriter.ledger_past (
    id               integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    ledger_id        integer NOT NULL REFERENCES eventwriter.ledger ON DELETE CASCADE,
    filters          text[] NOT NULL,
    done             int8multirange NOT NULL
);

CREATE INDEX IF NOT EXISTS ledger_past_ledger ON eventwriter.ledger_past (ledger_id);

-- Sequences that the ledger lacks and that are gone from the stream: what they held for us, if anything, is lost.
CREATE TABLE IF NOT EXISTS eventwriter.ledger_losses (
    ledger_id        integer NOT NULL REFERENCES eventwriter.ledger ON DELETE CASCADE,
    first            bigint NOT NULL,
    last             bigint NOT NULL,
    -- Published after and before these times, as far as that can be told.
    after            timestamptz,
    before           timestamptz,
    noticed_at       timestamptz NOT NULL DEFAULT now(),
    -- When a person took note: eventwriter ledger accept.
    accepted_at      timestamptz,
    PRIMARY KEY (ledger_id, first)
);

-- A message of which at least one record could not become a row. Its payload is kept once.
CREATE TABLE IF NOT EXISTS eventwriter.dead_letter_messages (
    ledger_id        integer NOT NULL,
    sequence         bigint NOT NULL,
    subject          text NOT NULL,
    headers          jsonb, -- name: value; of a name that occurs more than once an array of its values
    payload          bytea NOT NULL,
    message_time     timestamptz NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (ledger_id, sequence)
);

-- Each record that was rejected; a NULL record_index is the whole message.
CREATE TABLE IF NOT EXISTS eventwriter.dead_letter_records (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    ledger_id        integer NOT NULL,
    sequence         bigint NOT NULL,
    record_index     integer,
    reason           text NOT NULL,
    detail           text NOT NULL,
    sqlstate         text,
    replayed_at      timestamptz,
    FOREIGN KEY (ledger_id, sequence) REFERENCES eventwriter.dead_letter_messages ON DELETE CASCADE
);

CREATE INDEX IF NOT EXISTS dead_letter_records_message
    ON eventwriter.dead_letter_records (ledger_id, sequence);

CREATE OR REPLACE VIEW eventwriter.dead_letters AS
SELECT r.id, l.logical_stream, l.stream, l.stream_created, l.durable,
       r.sequence, r.record_index, r.reason, r.detail, r.sqlstate,
       m.subject, m.headers, m.payload, m.message_time, m.created_at, r.replayed_at
  FROM eventwriter.dead_letter_records r
  JOIN eventwriter.dead_letter_messages m USING (ledger_id, sequence)
  JOIN eventwriter.ledger l ON l.id = r.ledger_id;

-- events
-- Events (EVENTS): CloudEvents, GELF, SNMP traps. The latest message of a key replaces the row.

CREATE TABLE IF NOT EXISTS events (
    event_timestamp  timestamptz NOT NULL,
    -- Context attributes of the CloudEvent. An event without an id has one made of its place in the stream.
    specversion      text,
    id               text NOT NULL,
    source           text NOT NULL DEFAULT '',
    type             text,
    datacontenttype  text,
    -- Of the CloudEvent; else the NATS subject.
    subject          text,
    remote_addr      text,
    host             text,
    -- Syslog's 0 (emergency) to 7 (debug).
    level            integer,
    severity         text,
    short_message    text,
    version          text,
    -- The payload as it came; of an array, the element.
    raw_data         text,
    -- When the stream took the message: a late redelivery of an older one does not replace a newer one.
    received_at      timestamptz,
    created_at       timestamptz NOT NULL DEFAULT now(),
    -- An event is identified by its source and its id.
    PRIMARY KEY (event_timestamp, id, source)
);

-- The primary key begins with the time: it needs no index of its own.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb') THEN
        PERFORM create_hypertable('events', 'event_timestamp', if_not_exists => true, migrate_data => true);
    END IF;
END
$$;

CREATE INDEX IF NOT EXISTS idx_events_subject ON events (subject, event_timestamp DESC);

-- logs
-- Log records (LOGS). Column names follow the OpenTelemetry logs data model.

CREATE TABLE IF NOT EXISTS logs (
    timestamp            timestamptz NOT NULL,
    observed_timestamp   timestamptz,
    trace_id             text NOT NULL DEFAULT '',
    span_id              text NOT NULL DEFAULT '',
    -- The W3C trace flags, the low 8 bits of flags.
    trace_flags          integer,
    flags                bigint,
    severity_text        text,
    severity_number      integer,
    body                 text,
    event_name           text,
    service_name         text,
    service_version      text,
    service_instance     text,
    scope_name           text,
    scope_version        text,
    scope_attributes     jsonb,
    attributes           jsonb,
    resource_attributes  jsonb,
    dropped_attributes_count bigint,
    schema_url           text,
    resource_schema_url  text,
    -- Where the record came in: otel, syslog, snmp, internal.
    source               text,
    -- What has no column of its own: a body that is not a string with its type, dropped counts of resource and scope.
    data                 jsonb,
    created_at           timestamptz NOT NULL DEFAULT now()
);

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb') THEN
        -- Makes the index on time itself.
        PERFORM create_hypertable('logs', 'timestamp', if_not_exists => true, migrate_data => true);
    ELSE
        CREATE INDEX IF NOT EXISTS idx_logs_timestamp ON logs (timestamp DESC);
    END IF;
END
$$;

CREATE INDEX IF NOT EXISTS idx_logs_service_time ON logs (service_name, timestamp DESC);
CREATE INDEX IF NOT EXISTS idx_logs_trace_id ON logs (trace_id) WHERE trace_id <> '';

-- netflow_metrics
-- Flow records (NETFLOW): NetFlow, IPFIX and sFlow. Indexed by time only: every further index costs each of many rows.

CREATE TABLE IF NOT EXISTS netflow_metrics (
    -- Received, else end, else start of the flow.
    timestamp        timestamptz NOT NULL,
    gateway_id       text,
    agent_id         text,
    device_id        text,
    flow_direction   text,
    src_addr         text,
    dst_addr         text,
    src_port         integer,
    dst_port         integer,
    -- The IP protocol's number.
    protocol         integer,
    -- As they were sampled: not multiplied by the sampling rate.
    packets          bigint,
    octets           bigint,
    sampler_address  text,
    -- SNMP indexes of the interfaces.
    input_snmp       integer,
    output_snmp      integer,
    -- Everything else, under the names of goflow2: sampling_rate, time_flow_start_ns, src_as, next_hop, tcp_flags ...
    metadata         jsonb,
    created_at       timestamptz NOT NULL DEFAULT now()
);

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb') THEN
        -- Makes the index on time itself.
        PERFORM create_hypertable('netflow_metrics', 'timestamp', if_not_exists => true, migrate_data => true);
    ELSE
        CREATE INDEX IF NOT EXISTS idx_netflow_metrics_timestamp ON netflow_metrics (timestamp DESC);
    END IF;
END
$$;

-- otel_metrics
-- Metric data points and performance records of spans (OTEL_METRICS).
-- Column names follow the OpenTelemetry metrics data model where they have no older name.

CREATE TABLE IF NOT EXISTS otel_metrics (
    timestamp            timestamptz NOT NULL,
    start_timestamp      timestamptz,
    -- Of the span itself, or of the first exemplar.
    trace_id             text NOT NULL DEFAULT '',
    -- Tells series of a metric, and records of a span, apart.
    series_key           text,
    span_id              text NOT NULL DEFAULT '',
    service_name         text,
    service_version      text,
    service_instance     text,
    -- Name of the span, or of the metric.
    span_name            text,
    span_kind            text,
    -- gauge, sum, histogram, exponential_histogram, summary; span, http, grpc, slow_span.
    metric_type          text,
    -- NULL for a point without recorded value; of a distribution it is the sum.
    value                double precision,
    -- The exact value of points that are integers.
    value_int            bigint,
    unit                 text,
    description          text,
    -- Only for units of time.
    duration_ms          double precision,
    duration_seconds     double precision,
    count                bigint,
    sum                  double precision,
    min                  double precision,
    max                  double precision,
    -- unspecified, delta, cumulative.
    temporality          text,
    is_monotonic         boolean,
    -- Bit 0: no recorded value.
    flags                bigint,
    http_method          text,
    http_route           text,
    http_status_code     text,
    grpc_service         text,
    grpc_method          text,
    grpc_status_code     text,
    is_slow              boolean,
    component            text,
    level                text,
    scope_name           text,
    scope_version        text,
    scope_attributes     jsonb,
    attributes           jsonb,
    resource_attributes  jsonb,
    schema_url           text,
    resource_schema_url  text,
    -- Buckets, bounds, quantiles, exemplars, and what else has no column of its own.
    data                 jsonb,
    created_at           timestamptz NOT NULL DEFAULT now()
);

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb') THEN
        -- Makes the index on time itself.
        PERFORM create_hypertable('otel_metrics', 'timestamp', if_not_exists => true, migrate_data => true);
    ELSE
        CREATE INDEX IF NOT EXISTS idx_otel_metrics_timestamp ON otel_metrics (timestamp DESC);
    END IF;
END
$$;

CREATE INDEX IF NOT EXISTS idx_otel_metrics_service_time ON otel_metrics (service_name, timestamp DESC);

-- otel_traces
-- Spans (OTEL_TRACES). Column names follow the OpenTelemetry trace data model.

CREATE TABLE IF NOT EXISTS otel_traces (
    timestamp            timestamptz NOT NULL,
    trace_id             text NOT NULL DEFAULT '',
    span_id              text NOT NULL DEFAULT '',
    parent_span_id       text,
    trace_state          text,
    flags                bigint,
    name                 text,
    -- 0 unspecified, 1 internal, 2 server, 3 client, 4 producer, 5 consumer.
    kind                 integer,
    start_time_unix_nano bigint,
    end_time_unix_nano   bigint,
    service_name         text,
    service_version      text,
    service_instance     text,
    scope_name           text,
    scope_version        text,
    scope_attributes     jsonb,
    -- 0 unset, 1 ok, 2 error.
    status_code          integer,
    status_message       text,
    attributes           jsonb,
    resource_attributes  jsonb,
    events               jsonb,
    links                jsonb,
    dropped_attributes_count bigint,
    dropped_events_count bigint,
    dropped_links_count  bigint,
    schema_url           text,
    resource_schema_url  text,
    -- What has no column of its own: dropped counts and entity references of resource and scope.
    data                 jsonb,
    created_at           timestamptz NOT NULL DEFAULT now()
);

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb') THEN
        -- Makes the index on time itself.
        PERFORM create_hypertable('otel_traces', 'timestamp', if_not_exists => true, migrate_data => true);
    ELSE
        CREATE INDEX IF NOT EXISTS idx_otel_traces_timestamp ON otel_traces (timestamp DESC);
    END IF;
END
$$;

CREATE INDEX IF NOT EXISTS idx_otel_traces_service_time ON otel_traces (service_name, timestamp DESC);
CREATE INDEX IF NOT EXISTS idx_otel_traces_trace_id ON otel_traces (trace_id);

-- sweep_host_states
-- Hosts as network sweeps found them (SWEEP). The latest message of a key replaces the row.

CREATE TABLE IF NOT EXISTS sweep_host_states (
    host_ip                text NOT NULL,
    gateway_id             text NOT NULL,
    agent_id               text NOT NULL,
    partition              text NOT NULL,
    network_cidr           text,
    hostname               text,
    mac                    text,
    icmp_available         boolean,
    icmp_response_time_ns  bigint,
    -- Percent.
    icmp_packet_loss       double precision,
    tcp_ports_scanned      jsonb,
    tcp_ports_open         jsonb,
    port_scan_results      jsonb,
    last_sweep_time        timestamptz NOT NULL,
    first_seen             timestamptz,
    -- With it what has no column, and what did not fit its column.
    metadata               jsonb,
    -- When the stream took the message: a late redelivery of an older one does not replace a newer one.
    received_at            timestamptz,
    created_at             timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (host_ip, gateway_id, partition, last_sweep_time)
);

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb') THEN
        -- Makes the index on time itself.
        PERFORM create_hypertable('sweep_host_states', 'last_sweep_time', if_not_exists => true, migrate_data => true);
    ELSE
        CREATE INDEX IF NOT EXISTS idx_sweep_host_states_time ON sweep_host_states (last_sweep_time DESC);
    END IF;
END
$$;

-- timeseries_metrics
-- Measurements (TELEMETRY). No unique key: the ledger keeps redeliveries out, and a COPY goes straight in.

CREATE TABLE IF NOT EXISTS timeseries_metrics (
    timestamp         timestamptz NOT NULL,
    gateway_id        text NOT NULL,
    agent_id          text,
    metric_name       text NOT NULL,
    metric_type       text NOT NULL,
    device_id         text,
    value             double precision NOT NULL,
    unit              text,
    tags              jsonb,
    partition         text,
    -- As the producer gave it: value is not multiplied.
    scale             double precision,
    is_delta          boolean DEFAULT false,
    target_device_ip  text,
    if_index          integer,
    -- With it what has no column, and what did not fit its column.
    metadata          jsonb,
    created_at        timestamptz NOT NULL DEFAULT now()
);

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb') THEN
        -- Makes the index on time itself.
        PERFORM create_hypertable('timeseries_metrics', 'timestamp', if_not_exists => true, migrate_data => true);
    ELSE
        CREATE INDEX IF NOT EXISTS idx_timeseries_metrics_timestamp ON timeseries_metrics (timestamp DESC);
    END IF;
END
$$;

CREATE INDEX IF NOT EXISTS idx_timeseries_metrics_device_time ON timeseries_metrics (device_id, timestamp DESC);

