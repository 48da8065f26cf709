"""Shows results as tables, as CSV and as pictures."""
