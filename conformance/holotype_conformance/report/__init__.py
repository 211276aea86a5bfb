"""What a run has found, as text, HTML and JUnit XML."""
