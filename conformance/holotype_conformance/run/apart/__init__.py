"""Two processes in the place of one: what judges never imports the candidate, and what runs it never judges.

Both halves are one process up to the point at which the candidate would be imported; there it forks. The half that
judges (`holotype_conformance.run.apart.judging`) keeps the way to the supervisor, the reference, the drawing of
cases and the verdicts. The half that runs the candidate (`holotype_conformance.run.apart.serving`) builds
models, runs them on inputs that it is handed, and gives back what came out: as data, over one pair of sockets
(`holotype_conformance.run.apart.wire`). docs/trust.md says what this prevents, and what it does not.
"""
