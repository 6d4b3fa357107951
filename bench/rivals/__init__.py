"""What the broker is measured against, in the same run on the same machine: other ways to do the same."""
