"""Side-by-side measurements against the libraries that do the same jobs. Start them with `benchmarks/run`."""
