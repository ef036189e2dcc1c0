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
    ADD COLUMN IF NOT EXISTS comparing_until timestamptz,
    -- The message of ours with the highest sequence, and when JetStream received it, in nanoseconds since 1970: a stream
    -- in which that sequence has another time was restored to an earlier state, and gives sequences out a second time.
    ADD COLUMN IF NOT EXISTS newest bigint,
    ADD COLUMN IF NOT EXISTS newest_time bigint;

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

-- Which versions of this schema were applied. A later one is a file of its own, eventwriter_2.sql.
CREATE TABLE IF NOT EXISTS eventwriter.schema_versions (
    version          integer PRIMARY KEY,
    release          text NOT NULL,
    applied_at       timestamptz NOT NULL DEFAULT now(),
    -- What the schema looked like then: whoever finds it so has nothing to do.
    shape            bigint
);
