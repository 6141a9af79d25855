"""The machine: thin edges to driver and kernel that take no decisions."""
