"""RecordFailure: write the failure report of a job that failed."""
