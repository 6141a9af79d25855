"""What is kept: thin edges to files."""
