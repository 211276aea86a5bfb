"""Reports of a run, as text, HTML and JUnit XML."""
