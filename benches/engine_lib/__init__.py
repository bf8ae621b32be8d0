"""The parts of benches/engine."""
