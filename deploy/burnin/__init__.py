"""The campaign: a seeded mix of operations and faults on a stack of its own, and the proof that nothing came of it.

schedule (pure, from the seed) ──► workload (HTTP API) ┐
                               └─► faults              ┴─► all faults end ──► record + audit ──► verdict
"""
