"""What can be found wrong before a stage runs: small checks, and a probe of the loaded model."""
