"""How evenly rows are drawn and in which order, sequence and step they are trained. Pure arithmetic."""
