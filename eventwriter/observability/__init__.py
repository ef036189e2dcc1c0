"""What the service says of itself: state board, metrics, status, page and log."""
