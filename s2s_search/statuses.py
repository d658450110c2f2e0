"""The statuses of trials, of their reports and of a search: each a closed set, declared here alone."""

from s2s_search.failures import FAILURES

RUNNING = "running"
ENDS = ("finished", "stopped", "diverged", *FAILURES)  # of a trial
REPORTED = (RUNNING, "finished", "diverged")  # what a report says of its trial
SEARCH_ENDS = ("finished", "interrupted", "out of budget", "failed")  # as a log has them
KILLED = "killed"  # of a search whose driver is gone and could not say so: no log has it
