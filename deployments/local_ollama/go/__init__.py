"""How Go reads and writes: JSON, struct fields, durations, quoted text and templates."""
