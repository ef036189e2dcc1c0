-- What eventwriter keeps for itself: the ledger (which messages are done) and the dead letters.

CREATE SCHEMA IF NOT EXISTS eventwriter;

-- One row per consumer. It changes in the transaction that writes a batch, so it says exactly what is in the tables.
CREATE TABLE IF NOT EXISTS eventwriter.ledger (
    id               integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    logical_stream   text NOT NULL,
    stream           text NOT NULL,
    -- A stream that was deleted and created again counts from 1 again: it gets a row of its own.
    stream_created   timestamptz NOT NULL,
    durable          text NOT NULL,
    done             int8multirange NOT NULL DEFAULT '{}',
    -- Gaps between done sequences are closed only above this one; what lies below was acknowledged
    -- to somebody else, or is missing from a database that was restored from a backup.
    fold_after       bigint NOT NULL DEFAULT 0,
    messages_written      bigint NOT NULL DEFAULT 0,
    messages_deadlettered bigint NOT NULL DEFAULT 0,
    messages_excluded     bigint NOT NULL DEFAULT 0,
    rows_written          bigint NOT NULL DEFAULT 0,
    updated_at       timestamptz NOT NULL DEFAULT now(),
    UNIQUE (stream, stream_created, durable)
) WITH (fillfactor = 10); -- room for heap-only updates: the row changes with every batch

-- A message of which at least one record could not become a row. Its payload is kept once.
CREATE TABLE IF NOT EXISTS eventwriter.dead_letter_messages (
    ledger_id        integer NOT NULL,
    sequence         bigint NOT NULL,
    subject          text NOT NULL,
    headers          jsonb,
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

-- Runs insert_sql, which takes a first ($1) and a last ($2) ordinal, over 1 ... last_ordinal, and returns the rows that
-- PostgreSQL refuses. A range with a refused row is cut in two, so k bad rows of n cost about k * log2(n / k) attempts,
-- all of them in one round trip. Errors that are not about data
-- (classes 22, 23, 44, 54, P0, and 21: two rows of one key) are raised.
CREATE OR REPLACE FUNCTION eventwriter.insert_isolating(insert_sql text, last_ordinal bigint)
RETURNS TABLE (ordinal bigint, code text, message text)
LANGUAGE plpgsql AS $$
DECLARE
    firsts bigint[] := ARRAY[1::bigint];
    lasts bigint[] := ARRAY[last_ordinal];
    depth integer := 1;
    first_one bigint;
    last_one bigint;
    middle bigint;
BEGIN
    IF last_ordinal < 1 THEN
        RETURN;
    END IF;
    WHILE depth > 0 LOOP
        first_one := firsts[depth];
        last_one := lasts[depth];
        depth := depth - 1;
        BEGIN
            EXECUTE insert_sql USING first_one, last_one;
            SET CONSTRAINTS ALL IMMEDIATE;
        EXCEPTION WHEN OTHERS THEN
            IF left(SQLSTATE, 2) NOT IN ('21', '22', '23', '44', '54', 'P0') THEN
                RAISE;
            ELSIF first_one = last_one THEN
                ordinal := first_one;
                code := SQLSTATE;
                message := SQLERRM;
                RETURN NEXT;
            ELSE
                middle := (first_one + last_one) / 2;
                -- The lower half comes first: rows keep their order.
                firsts[depth + 1] := middle + 1;
                lasts[depth + 1] := last_one;
                firsts[depth + 2] := first_one;
                lasts[depth + 2] := middle;
                depth := depth + 2;
            END IF;
        END;
    END LOOP;
END
$$;
