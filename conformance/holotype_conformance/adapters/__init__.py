"""Names that moved; they stay for one release."""
