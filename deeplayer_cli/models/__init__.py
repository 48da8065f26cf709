"""Model families. Each folder holds the code that only one family needs."""
