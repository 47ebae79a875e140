"""How fast the product is, beside what people use today: `python -m benchmarks` (docs/performance.md)."""
