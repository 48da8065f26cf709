"""Model families; what only one family does stands in a folder of its own."""
