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

-- With TimescaleDB: hypertable by event_timestamp
-- The primary key begins with the time: it needs no index of its own.

CREATE INDEX IF NOT EXISTS idx_events_subject ON events (subject, event_timestamp DESC);
