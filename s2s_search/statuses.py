"""The statuses of trials, of their reports and of a search: each a closed set, declared here alone."""

LOST, OUT_OF_MEMORY, FAILED = "lost", "out_of_memory", "failed"
FAILURES = (FAILED, OUT_OF_MEMORY, LOST)

RUNNING = "running"
ENDS = ("finished", "stopped", "diverged", *FAILURES)  # of a trial
REPORTED = (RUNNING, "finished", "diverged")  # what a report says of its trial
SEARCH_ENDS = ("finished", "interrupted", "out of budget", "failed")  # as a log has them
KILLED = "killed"  # of a search whose driver is gone and could not say so: no log has it
