"""Requests to predictions.

settings.py       how to ground; identity.py: what an answer depends on, as a record
grounder.py       a loaded model that answers requests
scheduler.py      which rows go through the model together; batching.py: how many
prefix_cache.py   the prefixes of the current images; their only owner
postprocess.py    answers to predictions
run.py            the run loop: resume, failures, progress
turns.py          one model under several settings, which take turns on the same rows
totals.py, failure_kinds.py, failure_limit.py, profile.py   what a run counts and reports
calibrate.py, prior_file.py               priors of calibrated methods
"""
