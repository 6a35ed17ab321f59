"""The last stage of a job that failed: nothing that was uploaded ends with neither result nor report."""
