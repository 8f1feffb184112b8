"""What is measured, and against what: ``make bench``. The page docs/benchmarks.md says how to read it."""
