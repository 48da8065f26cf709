"""Requests to predictions. README.md says what each file is for."""
