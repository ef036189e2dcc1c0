"""What an operator does from the command line, beside running the service."""
