"""Shows a comparison as a table, as CSV and as a picture."""
