"""What an operator sees of a job: state, metrics, logs, the final report."""
