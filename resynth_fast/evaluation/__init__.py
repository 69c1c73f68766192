"""How good are the answers? Probes whose generator is known, metrics, intervals."""
