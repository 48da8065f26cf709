"""Exit codes of the command besides 0; a run that a signal stopped has `stopping.Stop.exit_code`."""

FINISHED_WITH_ERRORS = 1
"""It finished, but with rows in error, problems of the data, or a failed check; or the reader of stdout left."""

USAGE_OR_IO = 2
"""Usage, configuration, memory or I/O, and more failures than allowed."""

DEFECT = 70
"""A defect of deeplayer itself."""

INTERRUPTED = 130
"""Ctrl-C outside of a run."""
