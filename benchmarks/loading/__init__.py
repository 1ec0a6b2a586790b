"""What the benchmarks of the running runtime share: servers as processes, load, figures. No benchmark by itself."""
