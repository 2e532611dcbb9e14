"""What is wrong with the rows of a stage: repeated, leaked, unparsable, cut off or written over."""
