"""Where a stage comes from and where it stands: records, ancestry, estimates, status. Free of torch."""
