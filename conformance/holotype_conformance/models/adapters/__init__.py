"""Candidates that come with the suite; nothing else of it imports what they import."""
