"""One idempotent SQL file per table, and ``eventwriter.sql`` for the ledger and the dead letters."""
