"""PostgreSQL: rows, dead letters and the ledger, in one transaction."""
