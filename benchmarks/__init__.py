"""The generated services against what people write by hand: `make bench`."""
