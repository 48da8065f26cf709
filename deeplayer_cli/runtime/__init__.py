"""Requests to predictions.

settings.py       how to ground; identity.py: what an answer depends on, as a record
prepare.py        checks before the model is loaded
grounder.py       a loaded model that answers requests; scope_check.py: words and images that it does not know
windows.py        rows with their images, as many as are looked at together
scheduler.py      which rows go through the model together; batching.py: how many
model_runner.py   runs the batches, with smaller ones where memory runs short
prefix_cache.py   the prefixes of the current images; their only owner
postprocess.py    answers to predictions; box_score.py: the score of a box
fallback.py       asks rows with unsure answers again, without pruning
run.py            the run loop: resume, failures, progress
turns.py          one model under several settings, which take turns on the same rows
ray_*.py          both on a cluster; blocks.py: blocks of rows, as they travel
totals.py, failure_kinds.py, failure_limit.py, profile.py   what a run counts and reports
calibrate.py, prior_file.py               priors of calibrated methods
"""
