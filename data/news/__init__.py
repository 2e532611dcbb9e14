"""News-like articles of invented people and places, with what an extraction should find in them."""
