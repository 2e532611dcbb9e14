"""Where a stage comes from and where it stands: records, ancestry, resumption, status. Free of torch."""
