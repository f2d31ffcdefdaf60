"""What codes hold beside identity: probes against shuffled, what is known of a run, and the table people read."""
