"""The statuses of trials, of reports and of a search: closed sets, declared here alone."""

LOST, OUT_OF_MEMORY, FAILED = "lost", "out_of_memory", "failed"
FAILURES = (FAILED, OUT_OF_MEMORY, LOST)

RUNNING, STOPPED = "running", "stopped"
# A trial that plateaued made as many reports as train.patience says without a better one.
PLATEAUED = "plateaued"
COMPLETE = ("finished", PLATEAUED)  # the ends of a trial that trained as long as its settings say
ENDS_ITSELF = (*COMPLETE, "diverged")  # the statuses of a last report
ENDS = (*COMPLETE, STOPPED, "diverged", *FAILURES)  # how a trial can end
REPORTED = (RUNNING, *ENDS_ITSELF)  # the statuses that a report gives to its trial
SEARCH_ENDS = ("finished", "interrupted", "out of budget", "failed")  # how a search can end

# How the reason begins with which a trial is stopped that has used up search.trial_hours.
TIME_IS_OVER = "trial_hours: "
# The reason of a trial that is stopped while it waits.
WAITED = "it waited for its turn when the search ended"

# The status of a search whose driver is gone without a last event. No log holds it.
KILLED = "killed"
