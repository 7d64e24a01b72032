"""What people see of a run: rows of metrics, the live display, trackers, the report with its pictures, the card."""
